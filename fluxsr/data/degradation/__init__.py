"""Degrades sharp images to the low-resolution ones that cameras, chat programs and web pages would make of them."""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.degradation.base import BicubicDegradation, Degradation, DegradationMix
    from fluxsr.data.degradation.camera import CameraDegradation
    from fluxsr.data.degradation.ranges import SecondStageRanges, StageRanges
    from fluxsr.data.degradation.real_esrgan import RealESRGANDegradation, mild_degradation

_HOME = {
    "BicubicDegradation": "base",
    "CameraDegradation": "camera",
    "Degradation": "base",
    "DegradationMix": "base",
    "RealESRGANDegradation": "real_esrgan",
    "SecondStageRanges": "ranges",
    "StageRanges": "ranges",
    "mild_degradation": "real_esrgan",
}

__all__ = [
    "BicubicDegradation",
    "CameraDegradation",
    "Degradation",
    "DegradationMix",
    "RealESRGANDegradation",
    "SecondStageRanges",
    "StageRanges",
    "mild_degradation",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
