"""Provides Lightning callbacks: averaging, previews, the artefact meter, calibration and files."""

from fluxsr.training.callbacks.artefacts import ArtefactMeter
from fluxsr.training.callbacks.ema import EMA
from fluxsr.training.callbacks.export_backbone import ExportBackbone
from fluxsr.training.callbacks.previews import ImageWriter, PreviewGrid

__all__ = ["EMA", "ArtefactMeter", "ExportBackbone", "ImageWriter", "PreviewGrid"]
