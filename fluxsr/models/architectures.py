"""The transformer architectures that are known by name, without a network and without weights."""

from __future__ import annotations

from typing import Any

# FLUX.1-dev's own configuration: 11,901,408,320 parameters, distilled guidance, non-commercial license.
_FLUX_DEV: dict[str, Any] = {
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

FLUX_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "flux.1-dev": _FLUX_DEV,
    # The same without guidance, 11,891,178,560 parameters, Apache-2.0.
    "flux.1-schnell": {**_FLUX_DEV, "guidance_embeds": False},
    # The embedded model: FLUX's single blocks on 8x8-pixel tokens (4x4 space-to-depth, then FLUX's own 2x2 packing).
    # One token is 2x2 pixels of a x4 LR image. No text: joint_attention_dim is as small as the architecture allows.
    "nano": {
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
    },
}
"""The configurations of ``FluxTransformer2DModel`` by name: FLUX.1's as published, and ``nano``, which is ours."""


def flux_architecture(name: str) -> dict[str, Any]:
    """Return a copy of the named configuration of ``FluxTransformer2DModel``.

    Args:
        name: a key of :data:`FLUX_ARCHITECTURES`.

    Raises:
        ValueError: for an unknown name, with the list of the known ones.
    """
    if name not in FLUX_ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(FLUX_ARCHITECTURES)}")
    return dict(FLUX_ARCHITECTURES[name])


# FLUX.1's autoencoder, 83,819,683 parameters: its configuration as published, with diffusers' class name.
_FLUX_VAE: dict[str, Any] = {
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

AUTOENCODER_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "flux.1-dev": _FLUX_VAE,
    "flux.1-schnell": _FLUX_VAE,
    # Its small stand-in, madebyollin/taef1.
    "taef1": {"_class_name": "AutoencoderTiny", "latent_channels": 16},
}
"""The configurations of diffusers' autoencoders for FLUX.1's latents, by the name of their model."""
