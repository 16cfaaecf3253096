"""Upscaling photos with what was trained: any size, any scale, bounded memory. Knows models and flows, not training.

Names are imported on first use. Reading and writing picture files is `fluxsr.images`.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.inference.loading import load_upscaler
    from fluxsr.inference.pipeline import FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler

_HOME = {
    "FluxSRPipeline": "pipeline",
    "Upscaler": "upscaler",
    "load_upscaler": "loading",
}

__all__ = ["FluxSRPipeline", "Upscaler", "load_upscaler"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
