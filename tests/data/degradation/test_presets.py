"""Real-ESRGAN's pipeline, drawn from smaller ranges: ``mild_degradation`` and ``camera_degradation``."""

from __future__ import annotations

import pytest
import torch
import yaml

from fluxsr.data import BicubicDegradation, RealESRGANDegradation, camera_degradation, mild_degradation
from fluxsr.demo import held_out_photo
from tests.conftest import ROOT


def error(degradation: RealESRGANDegradation, image: torch.Tensor, seeds: range) -> float:
    """Mean squared error of what is left of an image, at the LR image's size."""
    batch = image.expand(len(seeds), -1, -1, -1)
    small = torch.nn.functional.interpolate(batch, scale_factor=1 / degradation.scale, mode="bicubic", antialias=True)
    return float((degradation(batch, seeds=list(seeds)) - small).square().mean())


def test_it_leaves_most_of_a_photo():
    image = held_out_photo("chelsea")[:, :128, :128]
    assert error(mild_degradation(), image, range(8)) < error(RealESRGANDegradation(), image, range(8)) / 3


def test_a_camera_blurs_and_does_little_else():
    image = held_out_photo("chelsea")[:, :128, :128].expand(8, -1, -1, -1)
    seeds = list(range(8))
    clean = BicubicDegradation()(image, seeds=seeds)
    detail = [one(image, seeds=seeds).diff(dim=-1).abs().mean() for one in (camera_degradation(), mild_degradation())]
    assert detail[0] < 0.8 * clean.diff(dim=-1).abs().mean()
    assert detail[0] < detail[1]
    flat = torch.full((8, 3, 64, 64), 0.5)
    assert camera_degradation()(flat, seeds=seeds).std() < mild_degradation()(flat, seeds=seeds).std()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("preset", [mild_degradation, camera_degradation])
def test_they_are_real_esrgans_of_the_given_scale(preset, scale):
    degradation = preset(scale)
    assert type(degradation) is RealESRGANDegradation and degradation.scale == scale


def test_nanos_configurations_take_it_by_name():
    config = yaml.safe_load((ROOT / "examples" / "configs" / "student_nano.yaml").read_text())
    parts = config["data"]["degradation"]["init_args"]["degradations"]
    assert {"class_path": "fluxsr.data.mild_degradation"} in parts
