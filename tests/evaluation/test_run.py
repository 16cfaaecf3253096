import importlib
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fluxsr.evaluation import (
    METRICS,
    Settings,
    System,
    bicubic,
    evaluate,
    folder_system,
    load_metric,
    open_folders,
    write_report,
)
from fluxsr.evaluation.document import read_results
from fluxsr.evaluation.metrics import Metric
from fluxsr.evaluation.tables import to_markdown
from fluxsr.evaluation.testset import TestSet, bicubic_degradation
from fluxsr.images import read_image
from fluxsr.images.resize import imresize
from tests.evaluation.conftest import save


def results_of(folders, testset, *names, metrics=("psnr", "ssim"), **options):
    return evaluate(testset, [folder_system(name, folders / name, testset) for name in names], metrics, **options)


def test_values_means_intervals_and_the_test_between_systems(folders, testset):
    results = results_of(folders, testset, "worse", "better", output=folders / "out.json")
    assert results == json.loads((folders / "out.json").read_text())
    assert not [path for path in folders.iterdir() if path.name.startswith(".")]
    for name in ("worse", "better"):
        entry = results["systems"][name]
        for image, values in entry["images"].items():
            pair = (read_image(folders / part / image)[None] for part in (name, "HR"))
            assert values["psnr"] == load_metric("psnr").score(*pair)
        low, high = entry["interval"]["psnr"]
        each = [values["psnr"] for values in entry["images"].values()]
        assert entry["mean"]["psnr"] == pytest.approx(sum(each) / 3) and min(each) <= low <= high <= max(each)
    (row,) = (row for row in results["comparisons"] if row["metric"] == "psnr")
    assert row["first"] == "worse" and row["difference"] > 8 and row["p_value"] == 2 / 8 and row["interval"][0] > 0
    assert results["protocol"]["crop"] == 0 and "torchmetrics" in results["versions"]


def stop_after(counting, images):
    """What interrupts an evaluation when the system has restored so many images."""

    def progress(done, total):
        assert done <= total == 3
        if counting.calls >= images:
            raise KeyboardInterrupt

    return progress


def no_constants(name):
    raise AssertionError(f"{name} is no JSON")


def test_the_file_is_json_whatever_was_measured(folders, testset):
    output = folders / "out.json"
    results = results_of(folders, testset, "HR", "better", output=output)
    content = json.loads(output.read_text(), parse_constant=no_constants)
    assert content["systems"]["HR"]["images"]["a.png"]["psnr"] is None
    assert content["systems"]["HR"]["mean"] == {"psnr": None, "ssim": 1}
    assert results["systems"]["HR"]["mean"] == {"psnr": math.inf, "ssim": 1}
    assert results["systems"]["HR"]["interval"] == {"psnr": [math.inf, math.inf], "ssim": [1, 1]}
    assert {row["metric"] for row in results["comparisons"]} == {"ssim"}
    assert content["note"].startswith("null is infinity: psnr of a.png (HR), psnr of b.png (HR)")
    again = read_results(output)
    assert again["systems"] == results["systems"] and "inf" in to_markdown(again)


def test_a_file_of_an_earlier_version_is_read(folders, testset):
    output = folders / "old.json"
    results = results_of(folders, testset, "HR", "better")
    for name, facts in results["metrics"].items():
        results["metrics"][name] = {key: value for key, value in facts.items() if key != "source"}
    for entry in results["systems"].values():
        entry.pop("parameters")
    output.write_text(json.dumps(results))  # with the token Infinity, which Python's own reader takes
    assert read_results(output)["systems"]["HR"]["mean"]["psnr"] == math.inf
    assert "pyiqa" not in to_markdown(read_results(output))
    write_report([output], folders / "page.html")


def test_what_was_measured_is_appended_and_a_crash_may_cut_the_last_line(folders, testset, counting):
    output, part = folders / "out.json", folders / "out.json.part"
    sizes = []

    def interrupt(done, total):
        sizes.append(part.read_text())
        stop_after(counting, 3)(done, total)

    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=interrupt)
    assert not output.exists()
    assert all(
        later.startswith(earlier) and later.count("\n") == earlier.count("\n") + 1 for earlier, later in pairwise(sizes)
    )
    part.write_text(part.read_text()[:-30])
    assert list(read_results(output)["systems"]["counting"]["images"]) == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="was interrupted"):
        write_report([output], folders / "page.html")
    results = evaluate(testset, [counting], ["psnr"], output=output)
    assert counting.calls == 4 and not part.exists()
    assert read_results(output)["systems"] == results["systems"]
    part.write_text('{"format": 1, "syst')  # not even the head is whole
    assert read_results(output)["systems"] == results["systems"]


def test_results_on_equal_stems_are_kept_apart_and_matched_again(tmp_path, counting):
    for name in ("a.png", "a.jpg"):
        save(tmp_path / "hr" / name, (16, 16), 40 if name == "a.jpg" else 90)
    testset = open_folders(tmp_path / "hr", scale=4, degrade=bicubic_degradation(4))
    results = evaluate(testset, [counting], ["psnr"], save_images=tmp_path / "kept")
    files = results["systems"]["counting"]["files"]
    assert len(set(files.values())) == 2 and all(Path(path).is_file() for path in files.values())
    again = folder_system("kept", tmp_path / "kept" / "counting", testset)
    assert {name: str(path) for name, path in again.files.items()} == files
    same = folder_system("same", tmp_path / "hr", testset)
    assert {name: path.name for name, path in same.files.items()} == {"a.png": "a.png", "a.jpg": "a.jpg"}


def test_an_own_metric_is_measured_again_when_its_file_changes(folders, testset, counting, monkeypatch):
    monkeypatch.chdir(folders)
    monkeypatch.syspath_prepend(str(folders))
    for number in (1, 20):  # of other lengths: Python's cache knows a file by its second and its size
        (folders / "own_run_21.py").write_text(f"def measure(sr_image):\n    return {number}\n")
        sys.modules.pop("own_run_21", None)
        importlib.invalidate_caches()
        results = evaluate(testset, [counting], ["psnr", "mine=own_run_21:measure"], output=folders / "out.json")
        assert results["systems"]["counting"]["mean"]["mine"] == number
    assert results["metrics"]["mine"]["source"].startswith("own_run_21:measure, ")
    sys.modules.pop("own_run_21", None)


def test_a_number_that_has_no_mean_is_refused(testset, counting, folders, monkeypatch):
    monkeypatch.syspath_prepend(str(folders))
    (folders / "nan_run_21.py").write_text("def measure(sr_image):\n    return float('nan')\n")
    with pytest.raises(ValueError, match=r"mine of a.png \(counting\): it is nan"):
        evaluate(testset, [counting], ["mine=nan_run_21:measure"])
    sys.modules.pop("nan_run_21", None)


def test_consistency_is_measured_without_a_reference(folders):
    blind = open_folders(None, folders / "LR", scale=4)
    results = evaluate(blind, [bicubic(), folder_system("HR", folders / "HR", blind)], ["consistency"])
    means = {name: entry["mean"]["consistency"] for name, entry in results["systems"].items()}
    assert means["HR"] > means["bicubic"] > 20
    testset = open_folders(folders / "HR")
    better = folder_system("better", folders / "better", testset)
    with pytest.raises(ValueError, match="consistency need LR images, and there are none"):
        evaluate(testset, [better], ["consistency"])


def test_the_ntire_score_is_there_where_its_parts_are(folders, testset, monkeypatch):
    class Network:
        metric_mode, lower_better = "NR", False

        def __call__(self, image):
            return image.mean()

    fake = SimpleNamespace(list_models=lambda: ["a", "b"], create_metric=lambda name, device: Network())
    monkeypatch.setitem(sys.modules, "pyiqa", fake)
    combined = Metric(
        None, on_sets=True, parts=("pyiqa:a", "psnr"), combine=lambda values: values["pyiqa:a"] + values["psnr"]
    )
    monkeypatch.setitem(METRICS, "both", combined)
    system = folder_system("better", folders / "better", testset)
    for asked in (["both"], ["psnr", "pyiqa:a"]):
        results = evaluate(testset, [system], asked, output=folders / "out.json")
        entry = results["systems"]["better"]
        assert entry["mean"]["both"] == entry["mean"]["pyiqa:a"] + entry["mean"]["psnr"]
        assert all("both" not in values for values in entry["images"].values())
    assert results["metrics"]["pyiqa:a"]["source"] == "pyiqa" and results["metrics"]["both"]["source"] == "fluxsr"


def test_tf32_is_off_while_measuring_and_as_it_was_after(testset, counting):
    seen = []

    def restore(image, size):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return imresize(image, size)

    counting.restore = restore
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    results = evaluate(testset, [counting], ["psnr"])
    assert set(seen) == {(False, False)} and results["protocol"]["tf32"] == "off"
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_an_interrupted_run_goes_on_where_it_was(folders, testset, counting):
    output = folders / "out.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=stop_after(counting, 2))
    assert list(read_results(output)["systems"]["counting"]["images"]) == ["a.png", "b.png"]
    results = evaluate(testset, [counting], ["psnr"], output=output)
    assert counting.calls == 3
    fresh = evaluate(testset, [counting], ["psnr"])
    assert results["systems"]["counting"]["images"] == fresh["systems"]["counting"]["images"]
    assert list(results["systems"]["counting"]["images"]) == list(testset.items)
    # A second interruption loses nothing of what is known already.
    save(folders / "LR" / "a.png", (10, 12), 9)
    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=stop_after(counting, 0))
    assert len(read_results(output)["systems"]["counting"]["images"]) == 3


def test_what_several_processes_had_measured_is_taken_over(folders, testset, counting):
    output, first, second = (folders / name for name in ("out.json", "out.json.part", "out.json.1.part"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=stop_after(counting, 2))
    head, a, b = first.read_text().splitlines(keepends=True)
    first.write_text(head + a)
    second.write_text(head + b)
    assert list(read_results(output)["systems"]["counting"]["images"]) == ["a.png", "b.png"]
    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=stop_after(counting, 0))
    assert not second.exists() and first.read_text().count("\n") == 3
    evaluate(testset, [counting], ["psnr"], output=output)
    assert counting.calls == 3 and not first.exists()


class Watched(TestSet):
    """A test set that notes which images are read and made."""

    def hr_image(self, name):
        self.facts["read"].append(f"HR of {name}")
        return super().hr_image(name)

    def lr_image(self, name):
        self.facts["read"].append(f"LR of {name}")
        return super().lr_image(name)


def test_an_image_is_degraded_once_for_all_systems_and_not_at_all_where_nothing_is_left(folders, testset):
    read = []
    items = {name: item._replace(lr=None) for name, item in testset.items.items()}
    watched = Watched(items, 4, "bicubic", "", testset.facts | {"read": read}, bicubic_degradation(4))
    systems = [bicubic(), System("same", "here", "first", restore=imresize)]
    results = evaluate(watched, systems, ["psnr", "ssim"], output=folders / "out.json")["systems"]
    assert read.count("LR of b.png") == 1 and results["same"]["images"] == results["bicubic"]["images"]
    read.clear()
    again = evaluate(watched, systems, ["psnr", "ssim"], output=folders / "out.json")["systems"]
    assert not read and again["same"]["images"] == results["same"]["images"]


@pytest.mark.parametrize("change", ["HR", "LR", "model", "crop", "nothing", "metric"])
def test_only_what_changed_is_measured_again(change, folders, testset, counting):
    output, settings, metrics = folders / "out.json", Settings(), ["psnr"]
    before = evaluate(testset, [counting], metrics, settings, output)["systems"]["counting"]["images"]
    assert counting.calls == 3
    expected = 3
    if change in ("HR", "LR"):
        place = folders / change / "b.png"
        save(place, (40, 48) if change == "HR" else (10, 12), 100)
        expected = 4
    elif change == "model":
        counting.identity, expected = "second", 6
    elif change == "crop":
        settings, expected = Settings(crop=2), 6
    elif change == "metric":
        metrics, expected = ["psnr", "ssim"], 6
    after = evaluate(testset, [counting], metrics, settings, output)["systems"]["counting"]["images"]
    assert counting.calls == expected
    assert (after["b.png"]["psnr"] == before["b.png"]["psnr"]) == (change in ("model", "nothing", "metric"))
    assert after["a.png"].keys() == set(metrics)


def test_pictures_are_kept_as_they_were_measured(folders, testset, counting):
    counting.restore = lambda image, size: imresize(image, size) + 0.001  # between the levels of 8 bit
    results = evaluate(testset, [counting], ["psnr"], save_images=folders / "kept")
    entry = results["systems"]["counting"]
    again = folder_system("kept", folders / "kept" / "counting", testset)
    assert evaluate(testset, [again], ["psnr"])["systems"]["kept"]["images"] == entry["images"]
    assert entry["files"] == {name: str(folders / "kept" / "counting" / name) for name in testset.items}


def test_incomplete_and_misfit_folders_are_refused(folders, testset):
    (folders / "better" / "b.png").rename(folders / "better" / "renamed.png")
    save(folders / "worse" / "c.png", (12, 10))
    for name, told in (("better", "b.png.*renamed.png"), ("worse", "c.png .12x10 instead of 40x48")):
        with pytest.raises(ValueError, match=f"{name}: .*{told}"):
            folder_system(name, folders / name, testset)


def test_every_metric_that_lacks_something_is_named_before_anything_is_measured(
    tmp_path, testset, counting, monkeypatch
):
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match="3 of the metrics") as caught:
        evaluate(testset, [counting], ["psnr", "dists", "niqe", "musiq", "lpips_nano"], output=tmp_path / "out.json")
    told = str(caught.value).splitlines()
    assert {"dists", "niqe", "musiq"} <= {line.partition(":")[0] for line in told}
    assert told[-1].endswith("--metrics psnr,lpips_nano")
    assert counting.calls == 0 and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("metrics", "options", "named"),
    [
        (["psnr", "ssim"], {"hr": None}, "psnr, ssim need HR"),
        (["fid"], {}, "3 images"),
        (["psnr"], {"twice": True}, "counting, counting"),
        (["psnr", "fid"], {"any set": True}, "fid of counting"),
        (["artefact_db"], {}, "artefact_db: a.png, b.png, c.png"),
        (["psnr"], {"output": "[]"}, "other.json"),
        (["psnr"], {"output": "{"}, "other.json"),
    ],
)
def test_what_can_not_be_measured_is_said_before_anything_is(folders, counting, monkeypatch, metrics, options, named):
    testset = open_folders(folders / "HR" if "hr" not in options else None, folders / "LR")
    output = folders / "other.json"
    if "output" in options:
        output.write_text(options["output"])
    if "any set" in options:
        monkeypatch.setattr("fluxsr.evaluation.run.check_fid", lambda images: None)
    with pytest.raises(ValueError, match=named):
        evaluate(testset, [counting] * (1 + ("twice" in options)), metrics, output=output)
    assert counting.calls == 0


def test_a_system_for_another_scale_is_told(testset, counting):
    counting.restore = lambda image, size: torch.nn.functional.interpolate(image, scale_factor=2)
    with pytest.raises(ValueError, match=r"20x24 pixels of a.png.* 40x48"):
        evaluate(testset, [counting], ["psnr"])
