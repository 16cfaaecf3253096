"""Upscaling photos with what was trained: any size, any scale, bounded memory. Knows models and flows, not training.

Names are imported on first use, so that reading picture files needs no diffusers.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.inference.files import Picture, read_picture, write_picture
    from fluxsr.inference.loading import load_upscaler
    from fluxsr.inference.pipeline import FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler

_HOME = {
    "FluxSRPipeline": "pipeline",
    "Picture": "files",
    "Upscaler": "upscaler",
    "load_upscaler": "loading",
    "read_picture": "files",
    "write_picture": "files",
}

__all__ = ["FluxSRPipeline", "Picture", "Upscaler", "load_upscaler", "read_picture", "write_picture"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
