"""The nodes in a running ComfyUI, through its HTTP API.

The recipe: a checkout of ComfyUI (the V3 schema came in summer 2025), an interpreter with its requirements and fluxsr's, then

    FLUXSR_COMFYUI=FOLDER FLUXSR_COMFYUI_PYTHON=PYTHON pytest -m slow tests/comfyui

Without a GPU ComfyUI is started with --cpu, as here.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.inference import Upscaler
from tests.comfyui.server import ComfyUI, api_prompt
from tests.conftest import ROOT

SOURCE = os.environ.get("FLUXSR_COMFYUI", "")
PYTHON = os.environ.get("FLUXSR_COMFYUI_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SOURCE and PYTHON), reason="FLUXSR_COMFYUI and FLUXSR_COMFYUI_PYTHON name no ComfyUI"),
]
WORKFLOWS = ROOT / "comfyui" / "example_workflows"


@pytest.fixture(scope="module")
def comfy(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "fluxsr").symlink_to(ROOT / "comfyui")
    server = ComfyUI(Path(SOURCE), PYTHON, base, ROOT)
    print(f"ComfyUI answers after {server.seconds:.1f} s")
    yield server
    server.close()


@pytest.fixture(scope="module")
def photo(comfy) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 4), np.uint8)
    image = Image.fromarray(pixels)
    image.save(comfy.base / "input" / "photo.png")
    return image


@pytest.fixture(scope="module")
def workflow() -> dict:
    return json.loads((WORKFLOWS / "upscale_image.json").read_text())


def loaded(image: Image.Image) -> torch.Tensor:
    """What Load Image makes of it."""
    return torch.from_numpy(np.array(image.convert("RGB")).astype(np.float32) / 255.0).movedim(-1, 0)[None]


def saved(image: torch.Tensor) -> np.ndarray:
    """What Save Image writes of it: its levels are cut, not rounded."""
    return np.clip(255.0 * image[0].movedim(0, -1).numpy(), 0, 255).astype(np.uint8)


def test_all_nodes_are_there(comfy):
    assert {"FluxSRLoadModel", "FluxSRUpscale", "FluxSROneStep", "FluxSRPrompt"} <= set(comfy.nodes)
    assert "IMPORT FAILED" not in comfy.log.read_text()


def test_the_picture_of_the_example_is_the_upscalers(comfy, photo, workflow):
    path = comfy.run(api_prompt(workflow, comfy.nodes, LoadImage__image="photo.png"))
    torch.set_num_threads(torch.get_num_threads())
    expected = Upscaler.from_pretrained(device="cpu", color_fix="wavelet")(loaded(photo), scale=2)
    with Image.open(path) as image:
        assert np.array_equal(np.array(image), saved(expected))


def test_a_cancelled_run_leaves_it_usable(comfy, photo, workflow):
    large = api_prompt(workflow, comfy.nodes, LoadImage__image="photo.png", FluxSRUpscale__scale=24.0)
    begun = comfy.begin(large)
    time.sleep(4)
    comfy.post("/interrupt")
    status = comfy.end(begun, 60)["status"]
    assert any(name == "execution_interrupted" for name, _ in status["messages"]), status
    comfy.run(api_prompt(workflow, comfy.nodes, LoadImage__image="photo.png", FluxSRUpscale__scale=1.5))


def test_an_error_in_the_middle_leaves_it_usable(comfy, photo, workflow):
    wrong = api_prompt(workflow, comfy.nodes, LoadImage__image="photo.png", FluxSRUpscale__tile=3)
    status = comfy.end(comfy.begin(wrong))["status"]
    message = next(content for name, content in status["messages"] if name == "execution_error")
    assert message["exception_type"].endswith("ValueError") and "tile must be at least" in message["exception_message"]
    comfy.run(api_prompt(workflow, comfy.nodes, LoadImage__image="photo.png", FluxSRUpscale__scale=1.3))
