"""Degrades a sharp image as a camera with a shorter lens would have taken it: soft optics, and sharpened afterwards."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fluxsr.data.degradation.base import Degradation, one_by_one, rounded, shrunk
from fluxsr.data.degradation.jpeg import jpeg_compress
from fluxsr.data.degradation.kernels import gaussian_kernel
from fluxsr.data.degradation.ranges import Dice, Range, check_range
from fluxsr.data.degradation.steps import add_gaussian_noise, blur


class CameraDegradation(Degradation):
    """A camera's damage to a scene: the lens blurs, the sensor samples with noise, the camera sharpens and saves a JPEG.

    A camera's own sharpening is what separates its photos from reduced ones. On ten pairs of RealSR (Cai et al. 2019), taken
    with two focal lengths, the LR photo is closest to the HR one after a Gaussian blur of 2 to 4 HR pixels, reduction, and
    sharpening by 0.25 to 1.5 with a radius of 1 LR pixel (and a gain of each channel). Blur alone is 0.7 to 6 dB farther away.
    The default ranges come from that measurement.

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors, and is as reproducible.

    Args:
        scale: Magnification that the model is to learn; H and W must be multiples of it. None: the data's, or 4.
        blur_sigma: Smallest and largest standard deviation of the lens' Gaussian blur, in HR pixels.
        noise_range: Smallest and largest standard deviation of the sensor's noise, in 1/255.
        sharpen_amount: Smallest and largest share of the detail that sharpening adds; 0 sharpens nothing.
        sharpen_radius: Smallest and largest standard deviation in LR pixels of the blur that detail is measured against.
        jpeg_range: Smallest and largest quality of the JPEG, of 100.

    Raises:
        ValueError: For a range that makes no sense, naming it; on a call as `RealESRGANDegradation`.
    """

    def __init__(
        self,
        scale: int | None = None,
        *,
        blur_sigma: Range = (1.0, 4.0),
        noise_range: Range = (0.0, 3.0),
        sharpen_amount: Range = (0.0, 1.5),
        sharpen_radius: Range = (0.8, 1.4),
        jpeg_range: tuple[int, int] = (92, 100),
    ) -> None:
        check_range("blur_sigma", blur_sigma, above=0.0)
        check_range("noise_range", noise_range, least=0.0)
        check_range("sharpen_amount", sharpen_amount, least=0.0)
        check_range("sharpen_radius", sharpen_radius, above=0.0)
        check_range("jpeg_range", jpeg_range, least=1, most=100)
        self.scale = scale
        self.blur_sigma = blur_sigma
        self.noise_range = noise_range
        self.sharpen_amount = sharpen_amount
        self.sharpen_radius = sharpen_radius
        self.jpeg_range = jpeg_range

    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade; see the class."""
        return one_by_one(self._degrade, hr_image, seeds, self.scale)

    def _degrade(self, image: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        dice = Dice(generator)
        image = _gaussian_blur(image, dice.uniform(self.blur_sigma))
        image = shrunk(image[None], self.scale)[0]
        image = add_gaussian_noise(image, dice.uniform(self.noise_range), gray=False, generator=generator)
        detail = image - _gaussian_blur(image, dice.uniform(self.sharpen_radius))
        image = (image + dice.uniform(self.sharpen_amount) * detail).clamp_(0.0, 1.0)
        return rounded(jpeg_compress(image[None], dice.integer(*self.jpeg_range))[0])


def _gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    return blur(image, gaussian_kernel(2 * math.ceil(3 * sigma) + 1, (sigma, sigma)))
