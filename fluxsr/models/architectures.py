"""Lists the transformer architectures that are known by name, without a network and without weights."""

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

# FLUX.2-dev's own configuration: 32,223,281,152 parameters, distilled guidance, non-commercial license.
_FLUX2_DEV: dict[str, Any] = {
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
    **_FLUX2_DEV,
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

FLUX_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "flux.1-dev": _FLUX_DEV,
    # The same with other weights.
    "flux.1-krea-dev": _FLUX_DEV,
    "flux.1-kontext-dev": _FLUX_DEV,
    # The same without guidance, 11,891,178,560 parameters, Apache-2.0.
    "flux.1-schnell": {**_FLUX_DEV, "guidance_embeds": False},
    "flux.2-dev": _FLUX2_DEV,
    "flux.2-klein-4b": _KLEIN_4B,
    "flux.2-klein-base-4b": _KLEIN_4B,
    "flux.2-klein-9b": _KLEIN_9B,
    "flux.2-klein-base-9b": _KLEIN_9B,
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
    # A tiny FLUX.2 on the same tokens, without weights: what runs on it in seconds runs on FLUX.2.
    "nano2": {
        **_KLEIN_4B,
        "in_channels": 192,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "axes_dims_rope": [8, 8, 8, 8],
    },
}
"""The configurations of transformers by name: FLUX.1's and FLUX.2's as published, ``nano`` and ``nano2``, which are ours."""


def flux_architecture(name: str) -> dict[str, Any]:
    """Return a copy of the named configuration; :func:`fluxsr.models.families.family_of` gives its class.

    Args:
        name: A key of :data:`FLUX_ARCHITECTURES`.

    Raises:
        ValueError: For an unknown name, with the list of the known ones.
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

# FLUX.2's, 84,046,115 parameters; the arguments that are not named are the class's own.
_FLUX2_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLFlux2",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 32,
    "batch_norm_eps": 1e-4,
}

AUTOENCODER_ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{name: _FLUX_VAE for name in FLUX_ARCHITECTURES if name.startswith("flux.1")},
    **{name: _FLUX2_VAE for name in FLUX_ARCHITECTURES if name.startswith("flux.2")},
    # Its small stand-in, madebyollin/taef1.
    "taef1": {"_class_name": "AutoencoderTiny", "latent_channels": 16},
}
"""The configurations of diffusers' autoencoders for FLUX's latents, by the name of their model."""
