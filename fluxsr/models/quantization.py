"""Quantizes weights through diffusers, and knows what stays in 16 bits and what each format needs."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from fluxsr.models.families import Family

Quantization = Literal["int8", "fp8", "nf4"]


def quantization_config(kind: Quantization, family: Family) -> Any:
    """Return diffusers' configuration of a weight format, for ``from_pretrained(quantization_config=...)``."""
    if kind == "nf4" and not torch.cuda.is_available():
        raise ValueError("nf4 is made on a CUDA device, and there is none here: give int8 or fp8")
    try:
        if kind == "nf4":
            import bitsandbytes  # noqa: F401
            from diffusers import BitsAndBytesConfig

            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=torch.bfloat16,
                bnb_4bit_use_double_quant=True,  # the scales in 8 bits: 0.516 bytes a weight instead of 0.5625
                llm_int8_skip_modules=list(family.unquantized),
            )
        from diffusers import TorchAoConfig
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        weights = Int8WeightOnlyConfig if kind == "int8" else Float8WeightOnlyConfig
        return TorchAoConfig(weights(), modules_to_not_convert=[f"{name}.weight" for name in family.unquantized])
    except ImportError as error:
        raise _missing(kind, error) from None


def quantize_int8(transformer: nn.Module, family: Family) -> None:
    """Give the linears of a loaded transformer int8 weights, in place, with a scale for each row."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise _missing("int8", error) from None

    def wanted(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and name not in family.unquantized

    quantize_(transformer, Int8WeightOnlyConfig(), filter_fn=wanted)


def _missing(kind: Quantization, error: ImportError) -> ValueError:
    return ValueError(f"{kind} weights need the extra quant: pip install 'fluxsr[quant]' ({error})")
