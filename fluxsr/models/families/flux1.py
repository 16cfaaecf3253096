"""Defines FLUX.1 as a family: Black Forest Labs' models of 2024 and 2025, and ``nano``, which is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fluxsr.models.bfl import to_bfl
from fluxsr.models.families.family import Conditions, Family, Published
from fluxsr.models.licenses import APACHE, non_commercial

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
        """Return the weights under the names of Black Forest Labs."""
        return to_bfl(state)


FLUX1 = Flux1()
