"""Against OSEDiff's published values, image by image."""

from __future__ import annotations

import csv
import math

import pytest

from fluxsr.evaluation import Settings, evaluate, folder_system, load_metric, open_benchmark
from fluxsr.evaluation.systems import bicubic
from fluxsr.images import read_image

# NIQE: 0.0065 is the largest of ten. SSIM: see the two tests.
TOLERANCE = {"psnr": 1e-4, "lpips_alex": 1e-4, "dists": 1e-4, "ssim_tables": 2e-6, "niqe": 0.007}
COLUMN = {"psnr": "psnr_y", "ssim_tables": "ssim", "ssim": "ssim"}


@pytest.fixture(scope="module")
def published(assets):
    with (assets / "bench" / "realsr10" / "osediff_metrics.csv").open() as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def compare(assets, published, name, images, tolerance):
    folder = assets / "bench" / "realsr10"
    metric = load_metric(name, Settings(weights=assets))
    for image in images:
        pair = (read_image(folder / part / image)[None] for part in ("osediff", "HR"))
        expected = float(published[image][COLUMN.get(name, name)])
        assert metric.score(*pair) == pytest.approx(expected, abs=tolerance), (name, image)


@pytest.mark.parametrize("name", ["psnr", "ssim_tables"])
def test_every_image(assets, published, name):
    compare(assets, published, name, published, TOLERANCE[name])


def test_torchmetrics_ssim_is_near(assets, published):
    compare(assets, published, "ssim", list(published)[:5], 0.01)


@pytest.mark.parametrize(("name", "images"), [("lpips_alex", 3), ("dists", 1), ("niqe", 3)])
def test_the_first_images(assets, published, name, images):
    compare(assets, published, name, list(published)[:images], TOLERANCE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lpips_alex", "dists", "niqe"])
def test_all_images(assets, published, name):
    compare(assets, published, name, published, TOLERANCE[name])


def test_a_run_files_the_same_values(assets, published):
    testset, _ = open_benchmark("realsr10", assets / "bench")
    system = folder_system("OSEDiff", assets / "bench" / "realsr10" / "osediff", testset)
    results = evaluate(testset, [system], ["psnr"])
    values = results["systems"]["OSEDiff"]["images"]
    assert values.keys() == published.keys() and results["benchmark"]["original"] is True
    assert [row["values"]["psnr"] for row in results["published"] if row["method"] == "OSEDiff"] == [25.15]
    for image, row in published.items():
        assert values[image]["psnr"] == pytest.approx(float(row["psnr_y"]), abs=1e-3)


@pytest.mark.parametrize(("name", "psnr"), [("set5", 28.42), ("set14", 26.00)])
def test_bicubic_is_the_row_of_the_classic_tables(assets, name, psnr):
    testset, benchmark = open_benchmark(name, assets / "bench")
    results = evaluate(testset, [bicubic()], ["psnr"], Settings(crop=benchmark.crop))
    # One of Set14 is gray. The classic tables measured its levels as they are, 0 to 255, and not their luma, 16 to 235.
    gray = 20 * math.log10(255 / 219) / 14 if name == "set14" else 0
    assert results["systems"]["bicubic"]["mean"]["psnr"] - gray == pytest.approx(psnr, abs=0.015)
