"""Folding while loading: the same model as folding after loading, without the modulation weights ever being in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxsr.models import FluxBackbone, fold_modulation, load_flux, load_folded
from tests.models.conftest import both_families, tiny_prompt, tiny_transformer
from tests.models.test_folding import T, distance, state, tiny_backbone


@pytest.fixture
def sharded(tmp_path, family):
    """A tiny checkpoint in diffusers' layout, of many files."""
    whole = tiny_transformer(family=family, guidance_embeds=True)
    whole.save_pretrained(tmp_path / "model" / "transformer", max_shard_size="40KB")
    assert len(list((tmp_path / "model" / "transformer").glob("*.safetensors"))) > 3
    return tmp_path / "model"


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@both_families
@torch.no_grad()
def test_loading_folded_is_loading_and_folding(sharded, tokens, dtype, family):
    prompt = tiny_prompt(tokens, family)
    whole = FluxBackbone(load_flux(str(sharded), guidance=3.5, trainable="none", dtype=dtype).transformer, prompt, 3.5)
    folded = load_folded(str(sharded), t=T, prompt=prompt, guidance=3.5, dtype=dtype)
    assert torch.equal(folded(*state()), whole(*state()))
    assert torch.equal(folded(*state(3)), fold_modulation(whole, T, fuse=True)(*state(3)))
    assert not [
        name for name in folded.state_dict() if "norm" in name and name.endswith(("linear.weight", "linear.bias"))
    ]


@both_families
@torch.no_grad()
def test_loading_fuses_an_adapter_into_weights_and_constants(sharded, tmp_path, family):
    whole = tiny_backbone(guidance=3.5, lora=True, family=family)
    file = whole.save_lora(tmp_path / "adapter.safetensors")
    folded = load_folded(str(sharded), t=T, prompt=tiny_prompt(family=family), guidance=3.5, lora=file)
    assert distance(folded(*state()), whole(*state())) < 1e-5
    expected = fold_modulation(whole, T, fuse=True).transformer.state_dict()
    for name, tensor in folded.transformer.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_loading_from_a_single_file():
    folded = load_folded("nano-student", t=T)
    assert torch.equal(folded(*state(channels=48)), load_flux("nano-student", trainable="none")(*state(channels=48)))


def test_what_loading_refuses(sharded, tmp_path):
    folded = fold_modulation(tiny_backbone(), T, fuse=True)
    folded.save(tmp_path / "folded.safetensors")
    with pytest.raises(ValueError, match=r"folded.safetensors is folded already, at t = 0.3"):
        load_folded(str(tmp_path / "folded.safetensors"))
    with pytest.raises(ValueError, match="give guidance"):
        load_folded(str(sharded))
    with pytest.raises(ValueError, match=r"guidance is 3.5"):
        load_folded("nano-student", guidance=3.5)
    with pytest.raises(ValueError, match=r"missing.safetensors does not exist"):
        load_folded("missing.safetensors")
    for name, changes, message in (
        ("deeper", {"num_layers": 3}, "which .* lacks: it was made for another base"),
        ("wider", {"num_attention_heads": 4}, "as a layer of 64x64, but it has shape .*another base"),
    ):
        file = tiny_backbone(lora=True, **changes).save_lora(tmp_path / f"{name}.safetensors")
        save_file(load_file(file), file)  # as other programs write it, without a word on its base
        with pytest.raises(ValueError, match=message):
            load_folded(str(sharded), guidance=3.5, lora=file)
    shard = max((sharded / "transformer").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        load_folded(str(sharded), guidance=3.5)
    (sharded / "transformer" / "config.json").unlink()
    with pytest.raises(ValueError, match="the folder is incomplete or damaged"):
        load_folded(str(sharded), guidance=3.5)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of a process")
def test_modulation_weights_leave_no_trace_in_memory(tmp_path):
    """The peak of a fresh process: far below the checkpoint, near the folded model."""
    wide = {"num_attention_heads": 8, "attention_head_dim": 64, "axes_dims_rope": [16, 24, 24], "num_single_layers": 4}
    transformer = tiny_transformer(**wide)
    transformer.save_pretrained(tmp_path, max_shard_size="16MB")
    whole = sum(parameter.nbytes for parameter in transformer.parameters())
    code = (
        "import re, torch; torch.set_num_threads(1)\n"
        "from fluxsr.models import PromptEmbedding, load_folded\n"
        "import fluxsr.models.folded\n"
        # Not getrusage: its peak begins with that of the process that started this one.
        "peak = lambda: 1024 * int(re.search('VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "prompt = PromptEmbedding(torch.zeros(1, 1, 24), torch.zeros(1, 12))\n"
        "load_folded('nano')\n"  # whatever is loaded lazily
        "before = peak()\n"
        f"folded = load_folded({str(tmp_path)!r}, prompt=prompt)\n"
        "kept = sum(tensor.nbytes for tensor in folded.transformer.state_dict().values())\n"
        "print(peak() - before, kept)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, kept = map(int, result.stdout.split())
    largest = 4 * 12 * 512**2
    assert kept < 0.8 * whole
    assert peak < kept + 2 * largest


@pytest.mark.gpu
@torch.no_grad()
def test_modulation_weights_never_reach_the_device(tmp_path):
    tiny_transformer(num_attention_heads=8, attention_head_dim=64, axes_dims_rope=[16, 24, 24]).save_pretrained(
        tmp_path
    )
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    folded = load_folded(str(tmp_path), prompt=tiny_prompt(), device="cuda")
    kept = sum(tensor.nbytes for tensor in folded.transformer.state_dict().values())
    assert torch.cuda.max_memory_allocated() - before < 1.05 * kept
    assert folded(torch.zeros(1, 4, 8, 8, device="cuda"), torch.full((1,), 0.25)).device.type == "cuda"
