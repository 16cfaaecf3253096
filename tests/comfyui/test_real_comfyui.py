"""The nodes in a running ComfyUI, through its HTTP API.

The recipe: a checkout of ComfyUI with the V3 schema, an interpreter with its requirements and fluxsr's, then

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
from safetensors.torch import load_file, save_file

from fluxsr.flows import euler
from fluxsr.inference import Upscaler
from fluxsr.models import FluxBackbone, PromptEmbedding
from fluxsr.models.families import FLUX1
from tests.comfyui.server import ComfyUI, api_prompt
from tests.conftest import ROOT
from tests.models.conftest import perturb, tiny_transformer

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
    expected = Upscaler.from_pretrained(device="cpu", color_fix="wavelet")(loaded(photo), scale=2)
    with Image.open(path) as image:
        assert np.array_equal(np.array(image), saved(expected))


def test_a_cancelled_run_leaves_it_usable(comfy, photo, workflow):
    large = api_prompt(
        workflow, comfy.nodes, LoadImage__image="photo.png", FluxSRUpscale__scale=32.0, FluxSRUpscale__steps=64
    )
    begun = comfy.begin(large)
    time.sleep(3)
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


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """What ComfyUI's classes make of our files, and the folder with them."""
    folder = tmp_path_factory.mktemp("inside")
    base = tiny_flux()
    base.save(folder / "diffusers.safetensors")
    save_file(FLUX1.original_names(base.transformer.state_dict()), folder / "bfl.safetensors")
    student = tiny_flux()
    student.add_lora(rank=3, alpha=6)
    perturb(student)
    student.save(folder / "lora.safetensors")
    generator = torch.Generator().manual_seed(7)
    case = {
        "latents": torch.randn(2, 16, 8, 12, generator=generator),
        "prompt_embeds": torch.randn(1, 3, 24, generator=generator),
        "pooled": torch.randn(1, 12, generator=generator),
    }
    save_file(case, folder / "case.safetensors")
    unet_config = {
        "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 12, "context_in_dim": 24, "hidden_size": 32,
        "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6], "theta": 10000,
        "qkv_bias": True, "guidance_embed": True,
    }  # fmt: skip
    numbers = {"unet_config": unet_config, "start_time": 0.3, "guidance": 2.5}
    (folder / "numbers.json").write_text(json.dumps(numbers))
    result = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("inside.py")), str(folder), str(ROOT / "comfyui")],
        cwd=SOURCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    facts = json.loads(result.stdout.splitlines()[-1])
    print({key: value for key, value in facts.items() if key != "modules"})
    return facts, load_file(folder / "found.safetensors"), case, base, student


def tiny_flux() -> FluxBackbone:
    return FluxBackbone.from_transformer(tiny_transformer(guidance_embeds=True, in_channels=64), guidance=2.5)


@pytest.mark.parametrize("name", ["base", "no_text", "lora", "half", "three"])
def test_one_step_through_comfyuis_flux_is_ours(inside, name):
    _, found, case, base, student = inside
    model = student if name == "lora" else base
    no_text = torch.zeros(1, 0, 24), torch.zeros(1, 12)
    model.set_prompt(PromptEmbedding(*(no_text if name == "no_text" else (case["prompt_embeds"], case["pooled"]))))
    with torch.no_grad():
        expected = euler(model, case["latents"], 0.3, 0.0, 3 if name == "three" else 1)
    if name == "half":
        expected = torch.lerp(case["latents"], expected, 0.5)
    assert (expected - case["latents"]).abs().max() > 0.05
    torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=2e-5)


def test_the_stock_loader_takes_every_tensor_of_our_adapter(inside):
    facts = inside[0]
    assert facts["unknown"] == [] and facts["missing"] == 0
    assert facts["patched"] > 0


def test_comfyui_keeps_the_pictures_of_a_batch_and_its_alpha(inside):
    _, found, *_ = inside
    rgba = torch.cat([found["image"], 1 - found["mask"][..., None]], dim=-1).movedim(-1, 1)
    expected = Upscaler.from_pretrained(device="cpu")(rgba, scale=2)
    assert torch.equal(found["pixels"], expected[:, :3].movedim(1, -1))
    assert torch.equal(found["alpha"], 1 - expected[:, 3])
    assert torch.equal(found["again"], found["pixels"])  # after its weights were taken off


def test_weights_are_counted_and_taken_off(inside):
    facts = inside[0]
    assert facts["loaded_bytes"] > 5e6 and facts["bytes_after_unloading"] == 0 and facts["loaded"]


def test_what_the_pack_imports(inside):
    facts = inside[0]
    assert not {"lightning", "gradio", "lpips", "torchmetrics"} & set(facts["modules"])
    assert "latent is (1, 4, 8, 8)" in facts["refused"]
