"""Defines FLUX.2 as a family: Black Forest Labs' models of November 2025 on, and ``nano2``, which is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fluxsr.models.families.family import APACHE, UNKNOWN, Conditions, Family, Published, non_commercial

# FLUX.2-dev's own configuration: 32,223,281,152 parameters, distilled guidance, non-commercial license.
_DEV: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 8,
    "num_single_layers": 48,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "joint_attention_dim": 15360,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": [32, 32, 32, 32],
    "rope_theta": 2000,
    "eps": 1e-6,
    "guidance_embeds": True,
}
# FLUX.2-klein, distilled and base alike, without guidance embedding: 3,875,544,576 and 9,078,581,248 parameters.
_KLEIN_4B: dict[str, Any] = {
    **_DEV,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
_KLEIN_9B: dict[str, Any] = {
    **_KLEIN_4B,
    "num_layers": 8,
    "num_single_layers": 24,
    "num_attention_heads": 32,
    "joint_attention_dim": 12288,
}
# A tiny FLUX.2 on nano's tokens, without weights: what runs on it in seconds runs on FLUX.2.
_NANO2: dict[str, Any] = {
    **_KLEIN_4B,
    "in_channels": 192,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": [8, 8, 8, 8],
}
# The autoencoder, 84,046,115 parameters; the arguments that are not named are the class's own.
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLFlux2",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 32,
    "batch_norm_eps": 1e-4,
}


def _license(repository: str) -> Any:
    return non_commercial("flux-non-commercial-license", repository)


class Flux2(Family):
    """FLUX.2: blocks of both kinds that share their modulation; one text encoder, no pooled prompt."""

    name = "FLUX.2"
    transformer = "Flux2Transformer2DModel"
    since = "0.36"
    folded = "FoldedFlux2Transformer"
    mark = ("timestep_guidance_channels", 256)
    # Three for all blocks together, and one before the last projection.
    modulation = re.compile(r"(double_stream_modulation_(img|txt)|single_stream_modulation|norm_out)\.linear")
    embedder = "time_guidance_embed"
    image_linears = (
        r"(transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0)|ff\.linear_(in|out))"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out))"
    )
    text_linears = r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.linear_(in|out))"
    text_modulation = "double_stream_modulation_txt.linear"
    tables = False
    lora_loader = "Flux2LoraLoaderMixin"
    foreign_keys = re.compile(r"lora_(unet|transformer|te\d?)_|diffusion_model\.(double|single)_blocks\.")  # and BFL's
    pipelines: ClassVar[Mapping[str, tuple[str, str]]] = {
        "Flux2Pipeline": ("Flux2Pipeline", "0.36"),
        "Flux2KleinPipeline": ("Flux2KleinPipeline", "0.37"),
    }
    autoencoders = ("black-forest-labs/FLUX.2-klein-4B",)
    vae = _VAE
    published: ClassVar[Mapping[str, Published]] = {
        "flux.2-klein-base-4b": Published("black-forest-labs/FLUX.2-klein-base-4B", _KLEIN_4B, APACHE),
        "flux.2-klein-4b": Published("black-forest-labs/FLUX.2-klein-4B", _KLEIN_4B, APACHE),
        "flux.2-klein-base-9b": Published(
            "black-forest-labs/FLUX.2-klein-base-9B", _KLEIN_9B, _license("FLUX.2-klein-base-9B")
        ),
        "flux.2-klein-9b": Published("black-forest-labs/FLUX.2-klein-9B", _KLEIN_9B, _license("FLUX.2-klein-9B")),
        "flux.2-klein-9b-kv": Published(
            "black-forest-labs/FLUX.2-klein-9b-kv", _KLEIN_9B, _license("FLUX.2-klein-9b-kv")
        ),
        "flux.2-dev": Published("black-forest-labs/FLUX.2-dev", _DEV, _license("FLUX.2-dev")),
        "nano2": Published("", _NANO2, UNKNOWN),
    }
    columns = 4
    takes_negative = True

    def text_ids(self, tokens: int, device: torch.device) -> Tensor:
        """Return (picture, row, column, word) of text tokens: the words are counted."""
        ids = super().text_ids(tokens, device)
        ids[:, 3] = torch.arange(tokens, device=device)
        return ids

    def embedded_prompt(self, conditions: Conditions, device: torch.device, dtype: torch.dtype) -> list[Any]:
        """Return nothing behind a guidance, and ``None`` in its place where there is none."""
        return [None] if conditions.guidance is None else []

    def mu(self, image_tokens: int, steps: int) -> float:
        """Return that of FLUX.2's sampling code, whose two lines in the number of tokens were fitted at 10 and 200 steps."""
        many = 0.00016927 * image_tokens + 0.45666666
        if image_tokens > 4300:
            return many
        few = 8.73809524e-05 * image_tokens + 1.89833333
        slope = (many - few) / 190.0
        return slope * steps + (many - 200.0 * slope)

    def encode(self, pipeline: Any, text: str, max_tokens: int, trim: bool) -> tuple[Tensor, Tensor | None]:
        """Return the features of klein's Qwen3, or of dev's Mistral, which are never trimmed."""
        embeds, _ = pipeline.encode_prompt(prompt=text, max_sequence_length=max_tokens)
        if trim and type(pipeline).__name__ == "Flux2KleinPipeline":
            # Before it pads the tokens, klein asks the text as a user's question.
            question = [{"role": "user", "content": text}]
            asked = pipeline.tokenizer.apply_chat_template(
                question, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            embeds = embeds[:, : len(pipeline.tokenizer(asked, truncation=True, max_length=max_tokens).input_ids)]
        return embeds, None


FLUX2 = Flux2()
