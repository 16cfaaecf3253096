"""``mild_degradation``: Real-ESRGAN's pipeline, drawn from smaller ranges."""

from __future__ import annotations

import pytest
import torch
import yaml

from fluxsr.data import RealESRGANDegradation, mild_degradation
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


@pytest.mark.parametrize("scale", [2, 4])
def test_it_is_real_esrgans_of_the_given_scale(scale):
    degradation = mild_degradation(scale)
    assert type(degradation) is RealESRGANDegradation and degradation.scale == scale


def test_nanos_configurations_take_it_by_name():
    config = yaml.safe_load((ROOT / "examples" / "configs" / "student_nano.yaml").read_text())
    parts = config["data"]["degradation"]["init_args"]["degradations"]
    assert {"class_path": "fluxsr.data.mild_degradation"} in parts
