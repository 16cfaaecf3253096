"""Backbones, autoencoders, adapters and prompts. Knows diffusers and peft, not objectives or losses."""

from fluxsr.models.adapters import AdapterRoles
from fluxsr.models.architectures import FLUX_ARCHITECTURES, flux_architecture
from fluxsr.models.autoencoders import LatentAutoencoder, PixelAutoencoder, load_autoencoder
from fluxsr.models.features import FeatureTap
from fluxsr.models.flux import FluxBackbone, load_flux
from fluxsr.models.prompts import PromptEmbedding, encode_prompt

__all__ = [
    "FLUX_ARCHITECTURES",
    "AdapterRoles",
    "FeatureTap",
    "FluxBackbone",
    "LatentAutoencoder",
    "PixelAutoencoder",
    "PromptEmbedding",
    "encode_prompt",
    "flux_architecture",
    "load_autoencoder",
    "load_flux",
]
