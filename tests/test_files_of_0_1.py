"""What version 0.1.0 wrote loads today and computes what it computed then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import TeacherPairs
from fluxsr.models import FluxBackbone, load_flux
from fluxsr.models.sources import ModelSource
from tests.models.conftest import tiny_transformer

FOLDER = Path(__file__).parent / "files_of_0_1"
SMALL = {"in_channels": 48, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def expected():
    return load_file(FOLDER / "expected.safetensors")


def backbone(*roles: str) -> FluxBackbone:
    made = FluxBackbone(tiny_transformer(**SMALL))
    for role in roles:
        made.add_lora(role, rank=1, trainable=role == "student")
    return made


def test_an_exported_adapter(expected):
    made = FluxBackbone(tiny_transformer(**SMALL))
    made.load_lora(FOLDER / "ftd.safetensors", "student", trainable=False)
    with torch.no_grad():
        velocity = made.as_role("student")(expected["x"], torch.tensor([0.31]))
    torch.testing.assert_close(velocity, expected["adapter"], rtol=1e-5, atol=1e-6)


def test_a_whole_model_in_one_file(expected):
    path = str(FOLDER / "whole.safetensors")
    with torch.no_grad():
        velocity = load_flux(path, trainable="none")(expected["x"], torch.tensor([0.31]))
    torch.testing.assert_close(velocity, expected["whole"], rtol=1e-5, atol=1e-6)
    assert ModelSource(path).metadata["start_time"] == "0.31"


def test_teacher_pairs():
    pairs = TeacherPairs(FOLDER / "pairs", scale=4)
    assert len(pairs) == 3
    sample = pairs[0]
    assert sample.hr_image.shape == (3, 16, 16) and sample.hr_latents.shape == sample.noise.shape == (48, 4, 4)
    assert sample.hr_image.std() > 0
