"""Defines FLUX.1 as a family: Black Forest Labs' models of 2024 and 2025, and ``nano``, which is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fluxsr.models.families.family import APACHE, Conditions, Family, Published, non_commercial

# FLUX.1-dev's own configuration: 11,901,408,320 parameters, distilled guidance, non-commercial license.
_DEV: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
# The same without guidance, 11,891,178,560 parameters.
_SCHNELL: dict[str, Any] = {**_DEV, "guidance_embeds": False}
# The embedded model: FLUX's single blocks on 8x8-pixel tokens (4x4 space-to-depth, then FLUX's own 2x2 packing).
# One token is 2x2 pixels of a x4 LR image. No text: joint_attention_dim is as small as the architecture allows.
_NANO: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 192,
    "num_layers": 0,
    "num_single_layers": 4,
    "attention_head_dim": 64,
    "num_attention_heads": 3,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
    "guidance_embeds": False,
    "axes_dims_rope": [8, 28, 28],
}
# The autoencoder, 83,819,683 parameters, as published.
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

# The names that FLUX.1's authors (Black Forest Labs) gave their layers, which ComfyUI, stable-diffusion.cpp and the converters
# to GGUF and others' formats read. diffusers renamed them and split each matrix of queries, keys and values into three.
# Source: https://github.com/black-forest-labs/flux, src/flux/model.py.
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


def _license(file: str) -> Any:
    return non_commercial("flux-1-dev-non-commercial-license", file)


class Flux1(Family):
    """FLUX.1: double-stream blocks, then single-stream blocks, each with modulation of its own; T5 and CLIP."""

    name = "FLUX.1"
    transformer = "FluxTransformer2DModel"
    since = "0.30"
    folded = "FoldedFluxTransformer"
    mark = ("pooled_projection_dim", 768)
    # The AdaLN linears: two in a double-stream block, one in a single-stream block, one before the last projection.
    modulation = re.compile(
        r"(transformer_blocks\.\d+\.norm1(_context)?|single_transformer_blocks\.\d+\.norm|norm_out)\.linear"
    )
    embedder = "time_text_embed"
    # Attention and MLP linears of both kinds of blocks; the modulation (norm*.linear) and the embedders stay as they are.
    image_linears = (
        r"(single_)?transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2)|proj_mlp|proj_out)"
    )
    text_linears = r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.net\.(0\.proj|2))"
    tables = True
    lora_loader = "FluxLoraLoaderMixin"
    pipelines: ClassVar[Mapping[str, tuple[str, str]]] = {
        "FluxPipeline": ("FluxPipeline", "0.30"),
        "FluxKontextPipeline": ("FluxPipeline", "0.30"),
    }
    autoencoders = ("black-forest-labs/FLUX.1-dev", "madebyollin/taef1")
    vae = _VAE
    published: ClassVar[Mapping[str, Published]] = {
        "flux.1-dev": Published("black-forest-labs/FLUX.1-dev", _DEV, _license("FLUX.1-dev/blob/main/LICENSE.md")),
        "flux.1-krea-dev": Published("black-forest-labs/FLUX.1-Krea-dev", _DEV, _license("FLUX.1-Krea-dev")),
        "flux.1-kontext-dev": Published("black-forest-labs/FLUX.1-Kontext-dev", _DEV, _license("FLUX.1-Kontext-dev")),
        "flux.1-schnell": Published("black-forest-labs/FLUX.1-schnell", _SCHNELL, APACHE),
        "nano": Published("", _NANO, APACHE),
    }
    columns = 3
    takes_negative = False

    def embedded_prompt(self, conditions: Conditions, device: torch.device, dtype: torch.dtype) -> list[Any]:
        """Return the pooled prompt."""
        assert conditions.pooled_prompt_embeds is not None
        return [conditions.pooled_prompt_embeds.to(device, dtype)]

    def mu(self, image_tokens: int, steps: int) -> float:
        """Return FLUX.1-dev's line in the number of tokens (its scheduler's configuration); the steps don't matter."""
        return 0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256)

    def encode(self, pipeline: Any, text: str, max_tokens: int, trim: bool) -> tuple[Tensor, Tensor | None]:
        """Return T5's features and CLIP's pooled one."""
        embeds, pooled, _ = pipeline.encode_prompt(prompt=text, prompt_2=None, max_sequence_length=max_tokens)
        if trim:
            length = len(pipeline.tokenizer_2(text, truncation=True, max_length=max_tokens).input_ids)
            embeds = embeds[:, :length]
        return embeds, pooled

    def original_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a whole FLUX.1's weights under the names of Black Forest Labs; a ``ValueError`` if it is folded or adapted."""
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
                kind = "scale" if single[inner].endswith("_norm") else kind
                if inner == "norm_out.linear":  # they have the shift before the scale
                    tensor = tensor.roll(len(tensor) // 2, 0)
                found[f"{prefix}{single[inner]}.{kind}"] = tensor
                continue
            home_of = [(name, layers.index(inner)) for name, layers in joined.items() if inner in layers]
            if not home_of:
                raise ValueError(
                    f"{key} has no name in BFL's layout: only a whole FLUX.1 has one (not folded, its adapter fused); leave "
                    "the layout at diffusers"
                )
            name, place = home_of[0]
            parts.setdefault(f"{prefix}{name}.{kind}", {})[place] = tensor
        return found | {name: torch.cat([one for _, one in sorted(rows.items())]) for name, rows in parts.items()}


FLUX1 = Flux1()
