"""Loads backbones, autoencoders, adapters and prompts. It imports diffusers and peft, not objectives or losses."""

from fluxsr.models.adapters import AdapterRoles
from fluxsr.models.autoencoders import Flux2Autoencoder, LatentAutoencoder, PixelAutoencoder, load_autoencoder
from fluxsr.models.discriminator import LatentDiscriminator
from fluxsr.models.expansion import expand_blocks
from fluxsr.models.features import FeatureTap
from fluxsr.models.flux import FluxBackbone
from fluxsr.models.folding import compile_blocks, fold_modulation, fuse_lora, load_folded
from fluxsr.models.known_names import FLUX_ARCHITECTURES, flux_architecture
from fluxsr.models.load import load_flux
from fluxsr.models.prompts import PromptEmbedding, encode_prompt, make_prompt
from fluxsr.models.sources import ModelSource
from fluxsr.models.stand_ins import tabulate_modulation
from fluxsr.models.student import StudentRecord, read_record

__all__ = [
    "FLUX_ARCHITECTURES",
    "AdapterRoles",
    "FeatureTap",
    "Flux2Autoencoder",
    "FluxBackbone",
    "LatentAutoencoder",
    "LatentDiscriminator",
    "ModelSource",
    "PixelAutoencoder",
    "PromptEmbedding",
    "StudentRecord",
    "compile_blocks",
    "encode_prompt",
    "expand_blocks",
    "flux_architecture",
    "fold_modulation",
    "fuse_lora",
    "load_autoencoder",
    "load_flux",
    "load_folded",
    "make_prompt",
    "read_record",
    "tabulate_modulation",
]
