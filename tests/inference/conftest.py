"""Upscalers that cost nothing, and the shipped one."""

from __future__ import annotations

import pytest
import torch

from fluxsr.inference import Upscaler
from fluxsr.models import PixelAutoencoder


def still(xt, t):
    """The velocity that changes nothing."""
    return torch.zeros_like(xt)


@pytest.fixture
def make():
    """Make an upscaler of any velocity, by default one that changes nothing."""

    def make(velocity=still, **options):
        return Upscaler(
            velocity, PixelAutoencoder(downsample=2), 0.25, **{"window": 16, "color_fix": "none", **options}
        )

    return make


@pytest.fixture(scope="session")
def nano():
    return Upscaler.from_pretrained(device="cpu")
