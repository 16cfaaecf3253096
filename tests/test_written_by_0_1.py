"""Files that version 0.1.0 wrote load, and give what that version gave (``written_by_0_1/expected.safetensors``)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import TeacherPairs
from fluxsr.inference import Upscaler, color
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import load_flux

OLD = Path(__file__).parent / "written_by_0_1"
IMAGE = torch.linspace(0, 1, 3 * 6 * 8).reshape(3, 6, 8)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(OLD / "expected.safetensors")


@pytest.fixture(autouse=True)
def color_fix_of_0_1(monkeypatch):
    """The color fix has one level more since; the files don't hold it."""
    monkeypatch.setattr(color, "LEVELS", 5)
    monkeypatch.setattr(color, "REACH", 31)


def close(result, wanted):
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter(expected):
    close(
        Upscaler.from_pretrained("nano", lora=OLD / "adapter.safetensors", device="cpu")(IMAGE, 2), expected["adapter"]
    )


def test_a_single_file(expected):
    backbone = load_flux(str(OLD / "folded.safetensors"), trainable="none")
    state = torch.linspace(-1, 1, 12 * 4 * 4).reshape(1, 12, 4, 4)
    close(backbone(state, torch.tensor([0.3])), expected["folded"])


def test_a_pipelines_folder(expected):
    """Its index names modules that have moved since."""
    close(Upscaler.from_pretrained(OLD / "pipeline", device="cpu")(IMAGE, 2), expected["pipeline"])
    pipeline = FluxSRPipeline.from_pretrained(OLD / "pipeline")
    close(pipeline(IMAGE, scale=2).images[0], expected["pipeline"])


def test_a_pair_store():
    assert len(TeacherPairs(OLD / "pairs", crop=8)) == 2
