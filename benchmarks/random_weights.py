"""Random weights for a module that was instantiated without any, made on the device that it runs on."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxsr.models import FluxBackbone
from fluxsr.models.families import FLUX1
from fluxsr.models.known_names import AUTOENCODER_ARCHITECTURES, FLUX_ARCHITECTURES
from fluxsr.models.quantization import quantization_config
from fluxsr.training import OneStepSR
from fluxsr.training.validation import Means

# The linears that stay in 16 bits, as where a base is quantized while it loads (fluxsr.models.quantization).
_KEPT = ("x_embedder", "context_embedder", "proj_out")


@torch.no_grad()
def materialize(module: OneStepSR, device: torch.device) -> None:
    """Fill a module that was made on the meta device: layers by their own initialization, the rest normally.

    One layer after the other, on the device, in its own dtype. A base that is to be quantized is quantized on the way, so that
    no more than one of its layers is ever there in 16 bits.

    Args:
        module: in place.
        device: where it goes.

    Raises:
        ValueError: if the package or the device that a quantized base needs is missing.
    """
    backbone: Any = module.backbone
    quantize = None if backbone.quantization is None else quantizer(backbone.quantization)
    chosen = base_linears(backbone) if quantize is not None else set()
    module.means = Means()  # metrics keep their beginnings aside, out of to_empty's reach
    for name, layer in list(module.named_modules()):
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            layer.to_empty(device=device, recurse=False)
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
            else:
                for tensor in chain(layer.parameters(recurse=False), layer.buffers(recurse=False)):
                    tensor.normal_()
        if quantize is not None and layer in chosen:
            quantized = quantize(layer)
            if quantized is not layer:
                module.set_submodule(name, quantized)
    for name, buffer in module.named_buffers():
        if ".net.head" in name:  # LPIPS's channel weights: with zeros no gradient would reach the decoder
            buffer.uniform_()
        elif name == "autoencoder.std":  # of FLUX.2's latents: a deviation is positive
            buffer.uniform_(0.5, 1.5)
    module.to(device)


def base_linears(backbone: FluxBackbone) -> set[nn.Module]:
    """Return the frozen linears that a quantized base has in few bits."""
    return {
        layer
        for name, layer in backbone.transformer.named_modules()
        if isinstance(layer, nn.Linear) and ".lora_" not in name and not name.startswith(_KEPT)
    }


def quantizer(kind: Any) -> Callable[[nn.Module], nn.Module]:
    """Return what turns a linear on its device into a quantized one, by the library's configuration of diffusers.

    diffusers quantizes what it loads from files, and these weights are in none.

    Raises:
        ValueError: if the package or the device that it needs is missing.
    """
    config = quantization_config(kind, FLUX1)  # the linears that stay are chosen by base_linears
    if kind != "nf4":
        from torchao.quantization import quantize_

        def to_few_bits(linear: nn.Module) -> nn.Module:
            quantize_(linear, config.quant_type)
            return linear

        return to_few_bits

    from bitsandbytes.nn import Linear4bit, Params4bit

    how = {"quant_type": config.bnb_4bit_quant_type, "compress_statistics": config.bnb_4bit_use_double_quant}

    def to_4bit(linear: Any) -> nn.Module:
        dtype = config.bnb_4bit_compute_dtype
        new: nn.Module = Linear4bit(linear.in_features, linear.out_features, compute_dtype=dtype, device="meta", **how)
        # It is quantized where it is moved to a device.
        new.weight = Params4bit(linear.weight.data, requires_grad=False, **how).to(linear.weight.device)
        new.bias = linear.bias
        return new

    return to_4bit


def tiny_model(folder: Path, model: str) -> tuple[str, ...]:
    """Write the configuration of a tiny model and its autoencoder, and return the arguments of ``fluxsr fit`` that take it.

    Args:
        folder: Where the files go.
        model: Name of the architecture that it is like.
    """
    whole = FLUX_ARCHITECTURES[model]
    head = 16
    axes = {3: [4, 6, 6], 4: [4, 4, 4, 4]}[len(whole["axes_dims_rope"])]
    small = {
        "num_layers": 1, "num_single_layers": 2, "attention_head_dim": head, "num_attention_heads": 2,
        "joint_attention_dim": 32, "axes_dims_rope": axes,
    }  # fmt: skip
    configs = {
        "transformer": {**whole, **small},
        "vae": {
            **AUTOENCODER_ARCHITECTURES[model],
            "block_out_channels": [8, 8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
    }
    for name, config in configs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    return (
        f"--model.backbone.init_args.model={folder}",
        "--model.backbone.init_args.lora_rank=4",
        f"--model.autoencoder.init_args.source={folder}",
    )
