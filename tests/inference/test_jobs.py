"""What a batch is to do, before it does anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxsr.inference.jobs import Job, plan_files, writable


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def sources(plan):
    return [job.source.name for job in plan.jobs]


def test_what_a_folder_holds_beside_pictures_is_named(tmp_path) -> None:
    folder = tmp_path / "in"
    touch(folder / "a.png", folder / "b.jfif", folder / "notes.txt", folder / ".hidden" / "c.png", folder / ".d.png")
    (folder / "back").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    plan = plan_files([str(folder)], tmp_path / "out")
    assert sources(plan) == ["a.png", "b.jfif"] and not plan.problems
    (line,) = plan.left_out
    for name in (
        "notes.txt",
        ".hidden (hidden)",
        ".d.png (hidden)",
        "back (a link to a folder around it)",
        "gone.png (a broken link)",
    ):
        assert name in line
    assert f"of {folder}: 5 (" in line


@pytest.mark.parametrize(
    "output", ["large.gif", "large.heic", "large.jxl", "large.pgn", "large.jpe", "-", "large.png.bak", "a/b.jp2"]
)
def test_endings_that_can_not_be_written_are_refused(tmp_path, monkeypatch, output) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.png")
    with pytest.raises(ValueError, match="give"):
        plan_files(["a.png"], output)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("large.png", "large.png"),
        ("large.AVIF", "large.AVIF"),
        ("large", "large/a.png"),
        ("large.gif/", "large.gif/a.png"),
        ("v1.2", "v1.2/a.png"),  # which exists
    ],
)
def test_a_file_or_a_folder(tmp_path, monkeypatch, output, target) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.png")
    (tmp_path / "v1.2").mkdir()
    assert plan_files(["a.png"], output).jobs == [Job(Path("a.png"), Path(target))]


@pytest.mark.parametrize(
    ("output", "suffix", "kind"), [("b.png", "", "jpg"), ("b.png", "_x4", None), ("out", "a/b", None)]
)
def test_options_that_contradict_each_other_are_refused(tmp_path, monkeypatch, output, suffix, kind) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"contradict|suffix"):
        plan_files(["a.png"], output, suffix, kind)


def test_the_same_file_twice_is_done_once(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "in" / "a.png")
    plan = plan_files(["in/a.png", "./in/a.png", "in", str(tmp_path / "in" / "*.png")], "out")
    assert len(plan.jobs) == 1 and not plan.problems


@pytest.mark.parametrize(("suffix", "kind"), [("_x4", None), ("", "jpg"), ("_x4", "tif")])
def test_a_second_run_into_the_input_folder_leaves_its_results_alone(tmp_path, suffix, kind) -> None:
    touch(tmp_path / "a.png", tmp_path / "sub" / "b.png")
    first = plan_files([str(tmp_path)], tmp_path, suffix, kind)
    touch(*(job.target for job in first.jobs))
    second = plan_files([str(tmp_path)], tmp_path, suffix, kind)
    assert second.jobs == first.jobs and len(first.jobs) == 2
    assert "results of an earlier run: 2" in second.left_out[0]


def test_results_that_a_link_leads_to_are_left_alone(tmp_path) -> None:
    """A link out of the input folder, around the output folder: the second run would take its own results for photos."""
    touch(tmp_path / "in" / "a.png", tmp_path / "b.png")
    (tmp_path / "in" / "up").symlink_to("..", target_is_directory=True)
    first = plan_files([str(tmp_path / "in")], tmp_path / "out")
    assert sources(first) == ["a.png", "b.png"]
    touch(*(job.target for job in first.jobs))
    second = plan_files([str(tmp_path / "in")], tmp_path / "out")
    assert second.jobs == first.jobs
    assert any("results of an earlier run: 2" in line for line in second.left_out)
    # With results above the input, nothing in it is one of them.
    assert {"a.png", "b.png"} <= set(sources(plan_files([str(tmp_path / "in")], tmp_path, "_x4")))


@pytest.mark.parametrize("folder", ["holiday [2024]", "a*b", "plain"])
@pytest.mark.parametrize("pattern", ["*.png", "x[[]1].png", "x[1].png", "**/*.png"])
def test_brackets_in_names_of_folders_and_files(tmp_path, folder, pattern) -> None:
    touch(tmp_path / folder / "x[1].png")
    plan = plan_files([str(tmp_path / folder / pattern)], tmp_path / "out")
    assert sources(plan) == ["x[1].png"] and not plan.problems


def test_names_that_become_too_long_are_told_and_the_others_done(tmp_path) -> None:
    long = "写" * 83 + ".png"
    touch(tmp_path / "in" / long, tmp_path / "in" / "a.png")
    plan = plan_files([str(tmp_path / "in")], tmp_path / "out", "_x4")
    assert sources(plan) == ["a.png"] and len(plan.problems) == 1
    assert len(plan_files([str(tmp_path / "in")], tmp_path / "out").jobs) == 2


def test_inputs_that_no_disk_has_are_problems_or_jobs_but_no_failure(tmp_path) -> None:
    plan = plan_files(["x" * 5000 + ".png", "a\0.png", str(tmp_path / "*[.png")], tmp_path / "out")
    assert len(plan.jobs) + len(plan.problems) == 3


@pytest.mark.skipif(os.name == "nt", reason="rights are other there")
def test_a_folder_below_a_file_is_known_before(tmp_path) -> None:
    touch(tmp_path / "file")
    good = Job(tmp_path / "a.png", tmp_path / "new" / "sub" / "a.png")
    bad = Job(tmp_path / "a.png", tmp_path / "file" / "a.png")
    assert writable([good]) == ([good], [])
    assert not (tmp_path / "new").exists()
    jobs, lines = writable([good, bad, bad])
    assert jobs == [good] and len(lines) == 1 and "2 pictures" in lines[0]
    with pytest.raises(ValueError, match="can't write into"):
        writable([bad])


def test_a_folder_that_can_not_be_looked_into_is_a_problem(tmp_path, monkeypatch) -> None:
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "locked" / "b.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    plan = plan_files([str(tmp_path / "in")], tmp_path / "out")
    assert sources(plan) == ["a.png"]
    (problem,) = plan.problems
    assert str(tmp_path / "in" / "locked") in problem and "Permission denied" in problem
