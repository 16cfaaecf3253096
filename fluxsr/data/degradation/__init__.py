"""Degrades sharp images to the low-resolution ones that cameras, chat programs and web pages would make of them."""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.degradation.base import (
        BicubicDegradation as BicubicDegradation,
        Degradation as Degradation,
        DegradationMix as DegradationMix,
    )
    from fluxsr.data.degradation.camera import CameraDegradation as CameraDegradation
    from fluxsr.data.degradation.ranges import (
        SecondStageRanges as SecondStageRanges,
        StageRanges as StageRanges,
    )
    from fluxsr.data.degradation.real_esrgan import (
        RealESRGANDegradation as RealESRGANDegradation,
        mild_degradation as mild_degradation,
    )

__getattr__, __dir__, __all__ = lazy_names(__name__)
