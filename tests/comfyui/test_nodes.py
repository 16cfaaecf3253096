"""The nodes of the pack, against a small stand-in of ComfyUI's interface."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fluxsr.inference import Upscaler
from fluxsr.models import StudentRecord, load_flux
from fluxsr.models.known_names import ASSETS
from tests.cli.conftest import fresh_process_modules
from tests.comfyui.standin import CONST, PACK, Interrupted, load_pack
from tests.conftest import ROOT
from tests.models.conftest import tiny_prompt

DEFAULTS = {"scale": 2.0, "width": 0, "height": 0, "strength": 1.0, "steps": 1, "tile": 0, "color_fix": "wavelet"}
LOADED = {
    "model": "nano-student",
    "lora": "none",
    "prompt": "none",
    "guidance": 0.0,
    "dtype": "auto",
    "memory": "comfyui",
    "start_time": 0.0,
}


@pytest.fixture
def pack(tmp_path, monkeypatch):
    yield load_pack(tmp_path / "models", lambda name, module: monkeypatch.setitem(sys.modules, name, module))
    for name in [one for one in sys.modules if one.startswith("custom_nodes_fluxsr.")]:
        del sys.modules[name]


@pytest.fixture
def nodes(pack) -> dict:
    classes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    return {one.define_schema().node_id: one for one in classes}


@pytest.fixture
def state(nodes):
    return sys.modules["comfy.model_management"].state


@pytest.fixture
def held(nodes):
    return nodes["FluxSRLoadModel"].execute(**LOADED).args[0]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(0))


def schema_inputs(node) -> dict:
    return {one.id: one for one in node.define_schema().inputs}


def test_images_are_upscalers_bit_for_bit(nodes, held, image):
    pixels, mask = nodes["FluxSRUpscale"].execute(held, image, **{**DEFAULTS, "strength": 1.2}).args
    expected = Upscaler.from_pretrained(device="cpu")(image.movedim(-1, 1), scale=2, strength=1.2)
    assert torch.equal(pixels, expected.movedim(1, -1))
    assert mask.shape == pixels.shape[:3] and not mask.any()


def test_a_mask_is_alpha(nodes, held, image):
    mask = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(1))
    pixels, out = nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS, mask=mask).args
    rgba = torch.cat([image, 1 - mask[..., None]], dim=-1).movedim(-1, 1)
    expected = Upscaler.from_pretrained(device="cpu")(rgba, scale=2)
    assert torch.equal(pixels, expected[:, :3].movedim(1, -1)) and torch.equal(out, 1 - expected[:, 3])
    four, _ = nodes["FluxSRUpscale"].execute(held, rgba.movedim(1, -1), **DEFAULTS).args
    assert torch.equal(four, expected.movedim(1, -1))


def test_the_empty_mask_of_an_opaque_photo_is_none(nodes, held, image):
    opaque = nodes["FluxSRUpscale"].execute(held, image[:1], **DEFAULTS, mask=torch.zeros(1, 64, 64)).args
    assert opaque[0].shape == (1, 48, 40, 3)
    with pytest.raises(ValueError, match="mask"):
        nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS, mask=torch.ones(1, 64, 64))


@pytest.mark.parametrize(
    ("sizes", "expected"), [((30, 40), (40, 30)), ((30, 0), (36, 30)), ((0, 36), (36, 30)), ((0, 0), (48, 40))]
)
def test_a_size_goes_before_the_scale(nodes, held, image, sizes, expected):
    options = {**DEFAULTS, "width": sizes[0], "height": sizes[1]}
    assert nodes["FluxSRUpscale"].execute(held, image[:1], **options).args[0].shape[1:3] == expected


def test_progress_covers_the_batch_and_cancel_ends_it(nodes, held, image, state):
    nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS)
    values = state.bars[-1].values
    assert values[-1][0] == values[-1][1] and [value for value, _ in values] == sorted(value for value, _ in values)
    state.cancelled = True
    with pytest.raises(Interrupted):
        nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS)


def test_weights_are_in_comfyuis_keeping_as_a_whole(nodes, held, image, state):
    nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS)
    (models, activations), size = state.loaded[-1], sum(one.nbytes for one in held.patcher.model.parameters())
    assert models == [held.patcher] and activations > 2**20
    assert held.patcher.model.loaded == size  # the stand-in offered room for seven bytes
    assert held.patcher.partially_unload(torch.device("cpu"), 10) == 0
    assert {*held.upscaler.velocity.parameters()} <= {*held.patcher.model.parameters()}


def test_menus_show_the_model_folder(nodes, tmp_path, held):
    folder = tmp_path / "models" / "fluxsr"
    (folder / "flux" / "transformer").mkdir(parents=True)
    (folder / "flux" / "transformer" / "config.json").write_text("{}")
    (folder / "flux" / "transformer" / "part.safetensors").touch()
    shutil.copy(ASSETS / "nano_student.safetensors", folder / "mine.safetensors")
    inputs = schema_inputs(nodes["FluxSRLoadModel"])
    assert inputs["model"].options["options"][3:] == ["flux", "mine.safetensors"]
    assert inputs["lora"].options["options"] == ["none", "mine.safetensors"]
    mine = nodes["FluxSRLoadModel"].execute(**{**LOADED, "model": "mine.safetensors"}).args[0]
    ours = held.upscaler.velocity.state_dict()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in mine.upscaler.velocity.state_dict().items())
    with pytest.raises(ValueError, match="refresh"):
        nodes["FluxSRLoadModel"].execute(**{**LOADED, "model": "gone.safetensors"})


def test_a_base_with_an_adapter(nodes, tmp_path):
    folder = tmp_path / "models" / "fluxsr"
    folder.mkdir(parents=True)
    student = load_flux("nano", trainable="lora", lora_rank=2)
    student.save_lora(folder / "lora.safetensors", record=StudentRecord(start_time=0.3))
    held = nodes["FluxSRLoadModel"].execute(**{**LOADED, "model": "nano", "lora": "lora.safetensors"}).args[0]
    assert held.upscaler.start_time == 0.3


def test_a_memory_is_planned_for(nodes, image, caplog):
    with caplog.at_level("INFO"):
        held = nodes["FluxSRLoadModel"].execute(**{**LOADED, "memory": "8GB"}).args[0]
    assert held.upscaler.memory_plan is not None and any("expected peak" in one.message for one in caplog.records)
    pixels, _ = nodes["FluxSRUpscale"].execute(held, image, **DEFAULTS).args
    expected = Upscaler.from_pretrained(device="cpu", memory="8GB")(image.movedim(-1, 1), scale=2)
    assert torch.equal(pixels, expected.movedim(1, -1))


class Flow:
    """A model as ComfyUI holds one, whose velocity tells what it was given."""

    def __init__(self, kind: type = CONST) -> None:
        self.kind, self.calls = kind, []
        self.latent_format = SimpleNamespace(latent_channels=16, shift=0.1, scale=0.4)

    def get_model_object(self, name):
        return {"model_sampling": self.kind(), "latent_format": self.latent_format}[name]

    def velocity(self, x, sigma, context, values):
        self.calls.append((x.clone(), float(sigma[0]), context, values))
        return torch.sin(x) + sigma[0]


@pytest.fixture
def latent() -> dict:
    return {"samples": torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(2)), "batch_index": [0, 1]}


TEXT = [[torch.zeros(1, 3, 24), {"pooled_output": torch.zeros(1, 12)}]]


def test_one_step_begins_at_the_latents_themselves(nodes, latent):
    flow = Flow()
    options = {"start_time": 0.25, "steps": 1, "guidance": 2.0, "positive": TEXT}
    out = nodes["FluxSROneStep"].execute(flow, latent, strength=1.0, **options).args[0]
    start = (latent["samples"] - 0.1) * 0.4
    ((x, sigma, _, values),) = flow.calls
    assert torch.equal(x, start) and sigma == 0.25 and values["guidance"] == 2.0
    expected = start - 0.25 * (torch.sin(start) + 0.25)
    torch.testing.assert_close((out["samples"] - 0.1) * 0.4, expected)
    assert out["batch_index"] == [0, 1]
    half = nodes["FluxSROneStep"].execute(flow, latent, strength=0.5, **options).args[0]
    torch.testing.assert_close((half["samples"] - 0.1) * 0.4, torch.lerp(start, expected, 0.5))


def test_several_steps_go_down_to_zero(nodes, latent):
    flow = Flow()
    options = {"start_time": 0.3, "strength": 1.0, "guidance": 2.0, "positive": TEXT}
    out = nodes["FluxSROneStep"].execute(flow, latent, steps=3, **options).args[0]
    x = (latent["samples"] - 0.1) * 0.4
    for t in (0.3, 0.2, 0.1):
        x = x - 0.1 * (torch.sin(x) + t)
    torch.testing.assert_close((out["samples"] - 0.1) * 0.4, x)


@pytest.mark.parametrize(("flow", "channels"), [(Flow(object), 16), (Flow(), 4)])
def test_a_model_or_latent_of_another_kind_is_refused(nodes, flow, channels):
    options = {"start_time": 0.3, "strength": 1.0, "steps": 1, "guidance": 2.0, "positive": TEXT}
    with pytest.raises(ValueError, match=r"FluxSR|latent"):
        nodes["FluxSROneStep"].execute(flow, {"samples": torch.zeros(1, channels, 4, 4)}, **options)


def test_a_cached_prompt_is_a_conditioning(nodes, tmp_path):
    folder = tmp_path / "models" / "fluxsr"
    folder.mkdir(parents=True)
    tiny_prompt().save(folder / "prompt.safetensors")
    ((embeds, values),) = nodes["FluxSRPrompt"].execute("prompt.safetensors").args[0]
    assert torch.equal(embeds, tiny_prompt().prompt_embeds)
    assert torch.equal(values["pooled_output"], tiny_prompt().pooled_prompt_embeds)
    with pytest.raises(ValueError, match="fluxsr prompt"):
        nodes["FluxSRPrompt"].execute("none")


def test_it_loads_neither_lightning_nor_gradio(tmp_path):
    options = {**DEFAULTS, "scale": 1.5}
    loaded = fresh_process_modules(f"""
import asyncio, sys, pathlib
sys.path.insert(0, {str(ROOT)!r})
import torch
from tests.comfyui.standin import load_pack
pack = load_pack(pathlib.Path({str(tmp_path)!r}))
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
held = nodes[0].execute(**{LOADED!r}).args[0]
nodes[1].execute(held, torch.rand(1, 8, 8, 3), **{options!r})
""")
    assert not {"lightning", "gradio", "lpips", "torchmetrics", "omegaconf", "jsonargparse"} & loaded


@pytest.mark.parametrize("path", sorted((PACK / "example_workflows").glob("*.json")), ids=lambda path: path.stem)
def test_example_workflows_fit_the_nodes(nodes, path: Path):
    graph = json.loads(path.read_text())
    links = {one[0]: one for one in graph["links"]}
    ours = [one for one in graph["nodes"] if one["type"] in nodes]
    assert ours
    for node in ours:
        inputs = schema_inputs(nodes[node["type"]])
        sockets = [one["name"] for one in node["inputs"]]
        assert set(sockets) <= set(inputs)
        assert len(node["widgets_values"]) == len(inputs) - len(sockets)
        assert all(one["link"] is None or links[one["link"]][3] == node["id"] for one in node["inputs"])


def test_the_pack_has_what_the_registry_wants():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        pytest.skip("tomllib came with Python 3.11")
    about = tomllib.loads((PACK / "pyproject.toml").read_text())
    assert about["project"]["dependencies"] == ["fluxsr"] == (PACK / "requirements.txt").read_text().split()
    assert (PACK / about["tool"]["comfy"]["Icon"]).is_file() and (PACK / "README.md").is_file()
    assert {"PublisherId", "DisplayName"} <= set(about["tool"]["comfy"])
