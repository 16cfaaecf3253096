"""Upscaling photos with what was trained: any size, any scale, bounded memory. Knows models and flows, not training.

Names are imported on first use, so that reading picture files needs no diffusers.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.inference.export import ExportedModel, export_model
    from fluxsr.inference.files import Picture, read_picture, write_picture
    from fluxsr.inference.parts import UpscalerParts, load_parts
    from fluxsr.inference.pipeline import FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler

_HOME = {
    "ExportedModel": "export",
    "FluxSRPipeline": "pipeline",
    "Picture": "files",
    "Upscaler": "upscaler",
    "UpscalerParts": "parts",
    "export_model": "export",
    "load_parts": "parts",
    "read_picture": "files",
    "write_picture": "files",
}

__all__ = [
    "ExportedModel",
    "FluxSRPipeline",
    "Picture",
    "Upscaler",
    "UpscalerParts",
    "export_model",
    "load_parts",
    "read_picture",
    "write_picture",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
