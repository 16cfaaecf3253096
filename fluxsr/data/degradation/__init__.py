"""Degrades sharp images to the low-resolution ones that cameras, chat programs and web pages would make of them."""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.degradation.base import Degradation
    from fluxsr.data.degradation.bicubic import BicubicDegradation
    from fluxsr.data.degradation.camera import CameraDegradation
    from fluxsr.data.degradation.mix import DegradationMix
    from fluxsr.data.degradation.presets import mild_degradation
    from fluxsr.data.degradation.ranges import SecondStageRanges, StageRanges
    from fluxsr.data.degradation.real_esrgan import RealESRGANDegradation

_HOME = {
    "BicubicDegradation": "bicubic",
    "CameraDegradation": "camera",
    "Degradation": "base",
    "DegradationMix": "mix",
    "RealESRGANDegradation": "real_esrgan",
    "SecondStageRanges": "ranges",
    "StageRanges": "ranges",
    "mild_degradation": "presets",
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
