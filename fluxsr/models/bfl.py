"""Writes FLUX.1's weights under the names that its authors (Black Forest Labs) gave them.

diffusers renamed the layers and split each matrix of queries, keys and values into three. The original names are what ComfyUI,
stable-diffusion.cpp and the converters to GGUF and others' formats read.

Source: https://github.com/black-forest-labs/flux, ``src/flux/model.py``, for the names of the layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_STEM = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
# Of a block with two streams: the image's, then the text's.
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "proj_out": "linear2",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
}
# One matrix there, several here, in this order.
_DOUBLE_JOINED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE_JOINED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
_BLOCKS: dict[str, tuple[str, Mapping[str, str], Mapping[str, tuple[str, ...]]]] = {
    "transformer_blocks": ("double_blocks", _DOUBLE, _DOUBLE_JOINED),
    "single_transformer_blocks": ("single_blocks", _SINGLE, _SINGLE_JOINED),
}
_BLOCK = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)")


def to_bfl(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a FLUX.1 transformer's weights under their original names.

    Args:
        state: Weights by diffusers' names, of a whole ``FluxTransformer2DModel`` without adapters.

    Raises:
        ValueError: If a weight has no original name: the model is another one, folded, or has adapters.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        prefix, inner = "", layer
        single: Mapping[str, str] = _STEM
        joined: Mapping[str, tuple[str, ...]] = {}
        if match := _BLOCK.fullmatch(layer):
            home, single, joined = _BLOCKS[match[1]]
            prefix, inner = f"{home}.{match[2]}.", match[3]
        if inner in single:
            name = single[inner]
            kind = "scale" if name.endswith("_norm") else kind
            found[f"{prefix}{name}.{kind}"] = _swapped(tensor) if inner == "norm_out.linear" else tensor
            continue
        home_of = [(name, layers.index(inner)) for name, layers in joined.items() if inner in layers]
        if not home_of:
            raise ValueError(
                f"{key} has no name in BFL's layout: only a whole FLUX.1 has one (not folded, its adapter fused); leave the "
                "layout at diffusers"
            )
        ((name, place),) = home_of
        parts.setdefault(f"{prefix}{name}.{kind}", {})[place] = tensor
    joined_up = {name: torch.cat([tensors[place] for place in sorted(tensors)]) for name, tensors in parts.items()}
    return found | joined_up


def _swapped(tensor: Tensor) -> Tensor:
    """Return the last modulation's rows as BFL has them, the shift before the scale."""
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])
