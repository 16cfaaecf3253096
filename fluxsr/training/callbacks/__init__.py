"""Lightning callbacks: averaging, previews, the artefact meter, calibration and files."""

from fluxsr.training.callbacks.ema import EMA
from fluxsr.training.callbacks.export import ExportBackbone

__all__ = ["EMA", "ExportBackbone"]
