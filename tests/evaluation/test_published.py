import csv

import pytest

from fluxsr.evaluation import published_efficiency, published_results
from fluxsr.evaluation.published import beside, differences

PROTOCOL = {"crop": 0, "lr": "files"}


def test_rows_are_as_printed():
    (row,) = (row for row in published_results("RealSR", "full") if row.method == "FluxSR")
    assert (row.source, row.steps, row.values["psnr"], row.values["qalign"]) == ("fluxsr", 1, 24.83, 4.3781)
    (row,) = (row for row in published_results("RealSR", "crop") if row.method == "OSEDiff")
    assert (row.source, row.values["lpips"], row.values["niqe"]) == ("flowsr", 0.2921, 5.65)
    assert {"FlowSR": "0.14", "DoSSR": "0.28"}.items() <= {
        row["method"]: row["seconds"] for row in published_efficiency()
    }.items()


def test_nothing_was_lost_or_changed_in_retyping(assets):
    reference = assets.parent / "reference" / "published_results.csv"
    if not reference.is_file():
        pytest.skip("no reference tables here")
    with reference.open() as file:
        theirs = [row for row in csv.DictReader(file) if "ablation" not in row["source"]]
    ours = published_results()
    assert len(ours) == len(theirs)
    for mine, row in zip(ours, theirs, strict=True):
        numbers = {name: float(row[name]) for name in mine.values}
        assert (mine.source, mine.dataset, mine.method) == (row["source"], row["dataset"], row["method"])
        assert mine.values == numbers and sum(bool(value) for value in list(row.values())[4:]) == len(numbers)


def test_full_images_and_crops_are_never_in_one_list():
    for dataset in ("RealSR", "DIV2K-val", "DRealSR"):
        assert {row.source for row in published_results(dataset, "full")} == {"fluxsr"}
        assert {row.source for row in published_results(dataset, "crop")} == {"flowsr"}


def test_columns_belong_to_the_nearest_metric():
    rows = published_results("RealSR", "crop")
    assert beside(rows, ["psnr", "ssim", "ssim_tables", "lpips_vgg", "pyiqa:musiq"]) == {
        "psnr": "psnr",
        "ssim_tables": "ssim",
        "pyiqa:musiq": "musiq",
    }
    assert beside(rows, ["ssim"]) == {"ssim": "ssim"} and beside([], ["psnr"]) == {}


def test_what_differs_is_said():
    benchmark = {"published": ("RealSR", "crop")}
    (only,) = differences(benchmark, PROTOCOL, ["psnr", "ssim_tables"], 100)
    assert only == "papers also print RealSR on full images: those rows are left out, this run is on crops 128 to 512"
    said = " ".join(differences(benchmark, {"crop": 4, "lr": "bicubic"}, ["ssim"], 10))
    for part in (
        "over 100 images, this run's over 10",
        "4 pixels are cut",
        "made here (bicubic)",
        "measure ssim_tables",
    ):
        assert part in said
