"""Many files from Python: one outcome for every input, and a watcher that is told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fluxsr.inference import upscale_files
from fluxsr.inference.batch import Sizes, Watcher, upscale_one
from fluxsr.inference.jobs import Job, plan_files


class Doubling:
    """Has the one method of an upscaler that a batch calls."""

    def upscale_pixels(self, pixels, size, progress=None, **options):
        if progress is not None:
            progress(1, 1)
        return np.kron(pixels, np.ones((size[0] // len(pixels), size[1] // pixels.shape[1], 1), pixels.dtype))


class Diary(Watcher):
    def __init__(self):
        self.entries = []

    def start(self, jobs, pixels):
        self.entries.append(("start", jobs))

    def begin(self, name, pixels):
        self.entries.append(("begin", name))

    def tiles(self, done, total):
        self.entries.append(("tiles", done, total))

    def end(self):
        self.entries.append(("end",))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def test_every_input_has_an_outcome_and_the_good_ones_are_written(folder):
    diary = Diary()
    outcomes = list(
        upscale_files([str(folder), "missing.png"], str(folder / "out"), scale=2, load=Doubling, watcher=diary)
    )
    done = [outcome for outcome in outcomes if not outcome.error]
    assert {outcome.target for outcome in done} == {folder / "out" / "a.png", folder / "out" / "b.png"}
    assert all(outcome.size == (6, 10) and Image.open(outcome.target).size == (10, 6) for outcome in done)
    errors = [outcome for outcome in outcomes if outcome.error]
    assert len(errors) == 2 and all(outcome.target is None for outcome in errors)
    assert "missing.png" in errors[1].error and "broken.png" in errors[0].error
    assert diary.entries[:4] == [("start", 4), ("begin", "a.png"), ("tiles", 1, 1), ("end",)]


def test_no_model_is_loaded_where_there_is_no_work(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a.png").touch()
    load = lambda: pytest.fail("a model was loaded")
    inputs, out = [str(folder / "a.png")], str(folder / "out")
    assert list(upscale_files(inputs, out, skip_existing=True, load=load)) == []
    (outcome,) = upscale_files(inputs, out, load=load)
    assert str(folder / "out" / "a.png") in outcome.error
    with pytest.raises(ValueError, match="2 images"):
        list(upscale_files([*inputs, str(folder / "b.png")], str(folder / "one.png"), load=load))


def test_one_output_for_two_inputs_is_a_problem_of_the_second(tmp_path):
    jobs, problems, _ = plan_files([str(tmp_path / "x" / "a.png"), str(tmp_path / "y" / "a.png")], tmp_path / "out")
    assert jobs == [Job(tmp_path / "x" / "a.png", tmp_path / "out" / "a.png")]
    assert len(problems) == 1


def test_a_result_beyond_the_limit_is_an_error_and_no_file(folder):
    outcome = upscale_one(Doubling(), Job(folder / "a.png", folder / "large.png"), Sizes(4), max_pixels=100)
    assert "20x12" in outcome.error and not (folder / "large.png").exists()
