"""What ships: sizes, loading, and what the student and the ablation claim."""

from __future__ import annotations

import pytest
import torch

from fluxsr.data import RealESRGANDegradation
from fluxsr.demo import PHOTOS, held_out_photo
from fluxsr.evaluation.metrics import Settings
from fluxsr.evaluation.run import evaluate
from fluxsr.evaluation.systems import bicubic, load_model
from fluxsr.evaluation.testset import open_folders
from fluxsr.images import write_image
from fluxsr.models import load_flux
from fluxsr.models.known_names import ASSETS

STUDENTS = ("nano-student", "nano-flowsr")


def test_all_weights_fit_into_thirty_two_megabytes():
    files = list(ASSETS.glob("*.safetensors"))
    assert {
        "nano_teacher.safetensors",
        "nano_student.safetensors",
        "nano_flowsr.safetensors",
        "perceptual_nano.safetensors",
    } <= {f.name for f in files}
    assert sum(file.stat().st_size for file in files) <= 32e6


@pytest.mark.parametrize(
    ("name", "count"), [("nano", 2_499_008), ("nano-student", 4_719_808), ("nano-flowsr", 2_499_008)]
)
def test_shipped_backbones_load(name, count, generator):
    backbone = load_flux(name, trainable="none")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count
    velocity = backbone(torch.randn(1, 48, 16, 16, generator=generator), torch.full((1,), 0.25))
    assert velocity.isfinite().all()


def differences(folder, metrics: list[str], weights=None) -> dict[str, dict[str, float]]:
    """Return each student's mean difference from bicubic on a folder's photos, degraded with seed 0, one step."""
    degrade = RealESRGANDegradation(scale=4)
    testset = open_folders(folder, None, 4, lambda image, number: degrade(image, seeds=[number]), "realesrgan, seed 0")
    systems = [bicubic(), *(load_model(name, device="cpu") for name in STUDENTS)]
    means = {
        name: found["mean"]
        for name, found in evaluate(testset, systems, metrics, Settings(weights=weights))["systems"].items()
    }
    return {
        name: {metric: means[name][metric] - value for metric, value in means["bicubic"].items()}
        | {f"share of {metric}": means[name][metric] / value - 1 for metric, value in means["bicubic"].items()}
        for name in STUDENTS
    }


@pytest.mark.slow
def test_the_students_beat_bicubic_on_set14(assets):
    found = differences(str(assets / "bench" / "Set14_x4" / "*HR*"), ["psnr", "lpips_vgg"], assets)
    for name, psnr, lpips in (("nano-student", 0.1, -0.15), ("nano-flowsr", 0.2, -0.05)):
        assert found[name]["psnr"] > psnr and found[name]["share of lpips_vgg"] < lpips, found


def test_the_students_beat_bicubic_on_held_out_photos(tmp_path):
    """The same claim, small: on scikit-image's photos, with the shipped perceptual net."""
    for name in PHOTOS:
        write_image(tmp_path / f"{name}.png", held_out_photo(name))
    found = differences(tmp_path, ["psnr", "lpips_nano"])
    for name in STUDENTS:
        assert found[name]["psnr"] > 0 and found[name]["lpips_nano"] < 0, found
