"""LoRA files as others write them, at the strength that they ask for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fluxsr.inference.export import export_model
from fluxsr.models import FluxBackbone, load_flux
from fluxsr.models.adapters import METADATA, read_lora
from fluxsr.models.families import FLUX1
from tests.models.conftest import perturb, tiny_transformer


@pytest.fixture
def plain(tmp_path):
    """An adapter under diffusers' keys, of rank 4."""
    backbone = FluxBackbone(tiny_transformer())
    backbone.add_lora(rank=4)
    perturb(backbone)
    return load_file(backbone.save(tmp_path / "plain.safetensors"))


def written(tmp_path, state, **metadata):
    save_file(state, tmp_path / "other.safetensors", metadata)
    return read_lora(tmp_path / "other.safetensors", FLUX1).state


def update(state, module):
    return state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"]


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key,
        lambda key: key.removeprefix("transformer."),
        lambda key: key.replace("transformer.", "base_model.model.", 1),
        lambda key: key.replace("transformer.", "base_model.model.transformer.", 1),
        lambda key: key.replace("transformer.", "diffusion_model.", 1),
        lambda key: key.replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up."),
    ],
    ids=["diffusers", "bare", "peft", "peft of a pipeline", "comfy", "down and up"],
)
def test_other_keys_are_the_same_adapter(plain, tmp_path, rename):
    found = written(tmp_path, {rename(key): tensor for key, tensor in plain.items()})
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_the_headers_alpha_is_honored_by_module(plain, tmp_path):
    names = sorted({key.split(".lora_")[0] for key in plain})
    special = names[0].removeprefix("transformer.")
    header = {"transformer.r": 4, "transformer.lora_alpha": 16, "transformer.alpha_pattern": {special: 2}}
    found = written(tmp_path, plain, **{METADATA: json.dumps(header)})
    torch.testing.assert_close(update(found, names[1]), 4 * update(plain, names[1]))
    torch.testing.assert_close(update(found, names[0]), 0.5 * update(plain, names[0]))
    header = {"transformer.lora_alpha": 16, "transformer.use_rslora": True}
    found = written(tmp_path, plain, **{METADATA: json.dumps(header)})
    torch.testing.assert_close(update(found, names[1]), 8 * update(plain, names[1]))


def test_alpha_tensors_are_honored(plain, tmp_path):
    module = next(iter(plain)).split(".lora_")[0]
    found = written(tmp_path, {**plain, f"{module}.alpha": torch.tensor(2.0)})
    assert found.keys() == plain.keys()
    torch.testing.assert_close(update(found, module), 0.5 * update(plain, module))


def test_kohyas_files_are_translated(tmp_path):
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=generator), torch.randn(128, 2, generator=generator)
    name = "lora_unet_double_blocks_0_img_mlp_0"
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    found = written(tmp_path, state)
    torch.testing.assert_close(update(found, "transformer.transformer_blocks.0.ff.net.0.proj"), 0.5 * up @ down)
    backbone = FluxBackbone(tiny_transformer())
    backbone.load_lora(tmp_path / "other.safetensors")
    assert backbone.adapters.names == ["student"]


@pytest.mark.parametrize("writer", ["comfyui", "kohya"])
def test_flux2s_files_of_other_trainers_are_translated(tmp_path, writer):
    """Their names of layers are BFL's, which mean other layers than FLUX.1's."""
    from diffusers.loaders import lora_pipeline

    if writer == "kohya" and not hasattr(lora_pipeline, "_convert_kohya_flux2_lora_to_diffusers"):
        pytest.skip("this diffusers translates no such file")
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=generator), torch.randn(3 * 32, 2, generator=generator)
    if writer == "comfyui":
        keys = [f"diffusion_model.double_blocks.0.img_attn.qkv.lora_{side}.weight" for side in "AB"]
    else:
        keys = [f"lora_unet_double_blocks_0_img_attn_qkv.lora_{side}.weight" for side in ("down", "up")]
    save_file(dict(zip(keys, (down, up), strict=True)), tmp_path / "other.safetensors")
    backbone = FluxBackbone(tiny_transformer(family="flux.2"))
    backbone.load_lora(tmp_path / "other.safetensors")
    found = backbone.adapters.state_dict("student")
    whole = torch.cat([update(found, f"transformer.transformer_blocks.0.attn.to_{part}") for part in "qkv"])
    torch.testing.assert_close(whole, up @ down)


@pytest.mark.parametrize("state", [{"x": torch.zeros(1)}, {"text_model.lora_down.weight": torch.zeros(1, 1)}])
def test_what_is_no_adapter_of_a_transformer_is_refused(tmp_path, state):
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        FluxBackbone(tiny_transformer()).load_lora(tmp_path / "other.safetensors")


def test_autocast_casts_an_adapters_input_once():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func._overloadpacket is torch.ops.aten._to_copy:
                self.count += args[0].nbytes + out.nbytes
            return out

    backbone = FluxBackbone(tiny_transformer().to(torch.bfloat16))
    backbone.add_lora(rank=4)
    perturb(backbone)
    xt, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])

    def run():
        with Copies() as copies, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return backbone(xt, t), copies.count

    ours, few = run()
    outputs = []
    for casts in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Copies() as copies:
            context = backbone.adapters.use("student")
            with context:
                for layer in backbone.adapters.layers:
                    layer.cast_input_dtype_enabled = casts
                block = backbone.transformer.single_transformer_blocks[0].attn.to_q
                outputs.append((block(torch.ones(1, 8, 32, dtype=torch.bfloat16)), copies.count))
    assert torch.equal(outputs[0][0], outputs[1][0]) and outputs[1][1] < outputs[0][1]
    assert few > 0 and ours.isfinite().all()
    assert not any(layer.cast_input_dtype_enabled for layer in backbone.adapters.layers)
    with torch.no_grad():
        backbone(xt, t)  # outside of autocast the cast is needed, and made
    assert all(layer.cast_input_dtype_enabled for layer in backbone.adapters.layers)


def adapter_of(backbone, folder):
    backbone.add_lora("student", rank=2)
    return backbone.save(folder / "adapter.safetensors")


@pytest.fixture(scope="module")
def nanos(tmp_path_factory):
    """An adapter of ``nano``, as a training leaves it."""
    return load_flux("nano").save(tmp_path_factory.mktemp("nano") / "adapter.safetensors")


@pytest.mark.parametrize("base", ["nano-student", "nano-flowsr"])
def test_an_adapter_is_refused_on_another_shipped_base(nanos, base):
    """nano-student has all of nano's layers, and nano-flowsr the same: the adapter fits both."""
    with pytest.raises(
        ValueError, match=f"adapter.safetensors was trained on nano.*(on {base}|num_single_layers is 4)"
    ):
        load_flux(base, lora_weights=str(nanos))
    assert load_flux("nano", lora_weights=str(nanos)).default_role == "student"


def test_a_folded_base_refuses_another_bases_adapter(nanos, tmp_path):
    with pytest.raises(ValueError, match="was trained on nano"):
        export_model(str(tmp_path / "out"), "nano-flowsr", lora=str(nanos), start_time=0.25)
    assert not (tmp_path / "out").exists()


def test_a_deeper_base_is_refused_without_a_name(tmp_path):
    path = adapter_of(FluxBackbone(tiny_transformer(num_single_layers=1)), tmp_path)
    with pytest.raises(ValueError, match="num_single_layers is 1 there and 2 here"):
        FluxBackbone(tiny_transformer(num_single_layers=2)).load_lora(path)


def test_another_hub_model_is_warned_about(tmp_path, caplog):
    path = adapter_of(FluxBackbone(tiny_transformer()), tmp_path)
    backbone = FluxBackbone(tiny_transformer())
    backbone.base = "someone/flux-b"
    state = load_file(path)
    save_file(state, path, {**replace(backbone.record, base="someone/flux-a").header(), "format": "pt"})
    backbone.load_lora(path)
    assert "someone/flux-a" in caplog.text and backbone.default_role == "student"


def test_no_path_of_the_base_is_in_an_adapters_file(tmp_path):
    whole = load_flux("nano", trainable="full").save(tmp_path / "mine.safetensors")
    path = load_flux(str(whole)).save(tmp_path / "adapter.safetensors")
    with safe_open(path, "pt") as file:
        assert not any("mine" in text for text in file.metadata().values())
