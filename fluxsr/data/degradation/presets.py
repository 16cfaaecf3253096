"""Degrades images less than the heavy damage that papers train on: mildly, or as the optics of a camera does."""

from fluxsr.data.degradation.ranges import SecondStageRanges, StageRanges
from fluxsr.data.degradation.real_esrgan import RealESRGANDegradation


def mild_degradation(scale: int = 4) -> RealESRGANDegradation:
    """Return Real-ESRGAN's degradation with small ranges: a little blur, little noise and JPEG of quality 80 and more.

    A model that saw heavy damage alone cleans photos that hardly need it. The ranges are our defaults.

    Args:
        scale: Magnification that the model is to learn.
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


def camera_degradation(scale: int = 4) -> RealESRGANDegradation:
    """Return Real-ESRGAN's degradation with what a camera alone does: much blur of the optics, little noise, fine JPEG.

    Pairs that are taken with two focal lengths (RealSR) are blurred by some pixels of the sharp image and hardly damaged
    otherwise. A model that saw little blur alone leaves them soft. The ranges are our defaults.

    Args:
        scale: Magnification that the model is to learn.
    """
    return RealESRGANDegradation(
        scale,
        first=StageRanges(
            blur_sigma=(1.0, 4.5),
            sinc_prob=0.0,
            resize_prob=(0.0, 0.0, 1.0),
            noise_range=(0.0, 4.0),
            poisson_scale_range=(0.0, 0.3),
            jpeg_range=(95, 100),
        ),
        second=SecondStageRanges(
            resize_prob=(0.0, 0.0, 1.0),
            noise_range=(0.0, 2.0),
            poisson_scale_range=(0.0, 0.1),
            jpeg_range=(92, 100),
        ),
        second_blur_prob=0.0,
        final_sinc_prob=0.0,
    )
