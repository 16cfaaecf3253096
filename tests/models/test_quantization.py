"""Quantized weights: what is asked of diffusers, with stand-ins for the packages that need a GPU."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from diffusers import FluxTransformer2DModel

from fluxsr.models import load_flux
from fluxsr.models.families import FLUX1
from fluxsr.models.quantization import quantization_config
from tests.models.conftest import tiny_transformer


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ValueError, match=r"int8 weights need the extra quant: pip install 'fluxsr\[quant\]'"):
        quantization_config("int8", FLUX1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="nf4 is made on a CUDA device"):
        quantization_config("nf4", FLUX1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="nf4 weights need the extra quant"):
        quantization_config("nf4", FLUX1)


def test_nf4_goes_through_diffusers_own_configuration(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0.0")
    config = quantization_config("nf4", FLUX1)
    assert type(config).__name__ == "BitsAndBytesConfig"
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.bfloat16 and config.bnb_4bit_use_double_quant
    assert config.llm_int8_skip_modules == ["x_embedder", "context_embedder", "proj_out"]


def test_a_backbone_is_quantized_while_it_loads(tmp_path, monkeypatch):
    """With a stand-in for the quantizer: what diffusers is asked for, and that a LoRA goes on top."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    asked = []
    real = FluxTransformer2DModel.from_pretrained.__func__

    def from_pretrained(cls, path, quantization_config=None, **kwargs):
        asked.append(quantization_config)
        return real(cls, path, **kwargs)

    monkeypatch.setattr("fluxsr.models.load.quantization_config", lambda kind, family: f"a configuration of {kind}")
    monkeypatch.setattr(FluxTransformer2DModel, "from_pretrained", classmethod(from_pretrained))
    backbone = load_flux(str(tmp_path / "base"), quantize="int8", lora_rank=2)
    assert asked == ["a configuration of int8"]
    assert backbone.quantization == "int8"
    assert all(".lora_" in name for name, p in backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nano"}, "takes a hub id or a folder in diffusers' layout, got 'nano'"),
        ({"model": "flux.1-dev"}, "takes a hub id or a folder"),
        ({"model": "some/where", "trainable": "full"}, "needs a frozen base, but trainable is 'full'"),
    ],
)
def test_what_cannot_be_quantized_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_flux(**arguments, quantize="int8")
