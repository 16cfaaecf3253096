"""Degrades images mildly, as a camera or one careful upload leaves them, beside the heavy damage that papers train on."""

from fluxsr.data.degradation.ranges import SecondStageRanges, StageRanges
from fluxsr.data.degradation.real_esrgan import RealESRGANDegradation


def mild_degradation(scale: int | None = None) -> RealESRGANDegradation:
    """Return Real-ESRGAN's degradation with small ranges: a little blur, little noise and JPEG of quality 80 and more.

    A model that saw only heavy damage cleans photos that hardly need it. The ranges are our defaults.

    Args:
        scale: Magnification that the model is to learn. None: the data's, or 4.
    """
    return RealESRGANDegradation(
        scale,
        first=StageRanges(
            blur_sigma=(0.2, 2.0),
            resize_prob=(0.1, 0.3, 0.6),
            resize_range=(0.5, 1.2),
            noise_range=(0.1, 6.0),
            poisson_scale_range=(0.01, 0.4),
            jpeg_range=(80, 100),
        ),
        second=SecondStageRanges(
            resize_prob=(0.1, 0.3, 0.6),
            resize_range=(0.6, 1.2),
            noise_range=(0.1, 4.0),
            poisson_scale_range=(0.01, 0.3),
            jpeg_range=(80, 100),
        ),
        second_blur_prob=0.3,
        final_sinc_prob=0.3,
    )
