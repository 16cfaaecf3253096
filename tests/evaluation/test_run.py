import json
import math
import sys

import pytest
import torch

from fluxsr.evaluation import Settings, evaluate, folder_system, load_metric, open_folders
from fluxsr.evaluation.document import read_results
from fluxsr.evaluation.imresize import imresize
from fluxsr.evaluation.run import columns
from fluxsr.images import read_image
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


def test_equal_images_have_infinite_psnr_and_no_test(folders, testset):
    results = results_of(folders, testset, "HR", "better")
    assert results["systems"]["HR"]["mean"] == {"psnr": math.inf, "ssim": 1}
    assert results["systems"]["HR"]["interval"] == {"psnr": [math.inf, math.inf], "ssim": [1, 1]}
    assert {row["metric"] for row in results["comparisons"]} == {"ssim"}


def test_an_interrupted_run_goes_on_where_it_was(folders, testset, counting, monkeypatch):
    output = folders / "out.json"

    def interrupt(count):
        if counting.calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=interrupt)
    assert list(read_results(output)["systems"]["counting"]["images"]) == ["a.png", "b.png"]
    results = evaluate(testset, [counting], ["psnr"], output=output)
    assert counting.calls == 3
    fresh = evaluate(testset, [counting], ["psnr"])
    assert results["systems"]["counting"]["images"] == fresh["systems"]["counting"]["images"]
    assert list(results["systems"]["counting"]["images"]) == list(testset.items)


def test_a_second_interruption_loses_nothing(folders, testset, counting):
    output = folders / "out.json"
    evaluate(testset, [counting], ["psnr"], output=output)
    save(folders / "LR" / "a.png", (10, 12), 9)

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(testset, [counting], ["psnr"], output=output, progress=interrupt)
    assert len(read_results(output)["systems"]["counting"]["images"]) == 3


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
    with pytest.raises(ValueError, match=r"better: .*missing: b.png; extra: renamed.png"):
        folder_system("better", folders / "better", testset)
    save(folders / "worse" / "c.png", (12, 10))
    with pytest.raises(ValueError, match=r"worse: .*c.png \(12x10 instead of 40x48\)"):
        folder_system("worse", folders / "worse", testset)


def test_every_metric_that_lacks_something_is_named_before_anything_is_measured(
    tmp_path, testset, counting, monkeypatch
):
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match="3 of the metrics can't be") as caught:
        evaluate(testset, [counting], ["psnr", "dists", "niqe", "musiq", "lpips_nano"], output=tmp_path / "out.json")
    message = str(caught.value)
    for part in (
        "dists: DISTS alpha and beta not found",
        "pip install --no-deps --target FOLDER dists-pytorch",
        "niqe: NIQE's original parameters not found",
        "musiq: metric 'musiq' is none of",
        "--metrics psnr,lpips_nano",
    ):
        assert part in message
    assert counting.calls == 0 and not (tmp_path / "out.json").exists()


def test_what_can_not_be_measured_is_said_before_anything_is(folders, testset, counting, monkeypatch):
    with pytest.raises(ValueError, match="psnr, ssim need HR images"):
        evaluate(open_folders(None, folders / "LR"), [counting], ["psnr", "ssim"])
    with pytest.raises(ValueError, match=r"fid on 3 images .* at least 50"):
        evaluate(testset, [counting], ["fid"])
    with pytest.raises(ValueError, match="a name of its own, got counting, counting"):
        evaluate(testset, [counting, counting], ["psnr"])
    assert counting.calls == 0
    monkeypatch.setattr("fluxsr.evaluation.run.check_set", lambda images: None)
    with pytest.raises(ValueError, match="fid of counting is measured on files: give --save_images, too"):
        evaluate(testset, [counting], ["psnr", "fid"])
    assert counting.calls == 0
    with pytest.raises(ValueError, match=r"artefact_db of a.png \(counting\): .* at least 8 periods"):
        evaluate(testset, [counting], ["artefact_db"])
    wrong = folders / "other.json"
    wrong.write_text("[]")
    with pytest.raises(ValueError, match="not what `fluxsr evaluate` writes"):
        evaluate(testset, [counting], ["psnr"], output=wrong)


def test_a_system_for_another_scale_is_told(testset, counting):
    counting.restore = lambda image, size: torch.nn.functional.interpolate(image, scale_factor=2)
    with pytest.raises(ValueError, match=r"counting makes 20x24 pixels of a.png, the benchmark wants 40x48"):
        evaluate(testset, [counting], ["psnr"])


def test_columns_are_by_metric():
    assert columns({"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}}) == {"x": [1, 3], "y": [2, 4]}
    assert columns({}) == {}
