"""Upscales photos: any size, any scale, bounded memory. It imports models and flows, not training.

Names are imported on first use. Reading and writing picture files is `fluxsr.images`.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.inference.batch import Outcome, upscale_files
    from fluxsr.inference.export import ExportedModel, export_model
    from fluxsr.inference.pipeline import FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler

_HOME = {
    "ExportedModel": "export",
    "FluxSRPipeline": "pipeline",
    "Outcome": "batch",
    "Upscaler": "upscaler",
    "export_model": "export",
    "upscale_files": "batch",
}

__all__ = [
    "ExportedModel",
    "FluxSRPipeline",
    "Outcome",
    "Upscaler",
    "export_model",
    "upscale_files",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
