"""Degrades as classic benchmarks do: bicubic reduction."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.data.degradation.base import Degradation, checked_images, rounded


class BicubicDegradation(Degradation):
    """Antialiased bicubic downsampling, the degradation of classic super-resolution benchmarks.

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors; `seeds` change nothing. Torch's
    antialiased filter (a = -0.5, Pillow's) is used, which differs from MATLAB's in borders and rounding only.

    Args:
        scale: Magnification that the model is to learn. None: the data's, or 4.
    """

    def __init__(self, scale: int | None = None) -> None:
        self.scale = scale

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int] = 0) -> Tensor:
        """Downsample; see the class."""
        many = hr_image.ndim == 4
        images, _ = checked_images(hr_image, [0] * len(hr_image) if many else 0, self.scale)
        size = (images.shape[-2] // self.scale, images.shape[-1] // self.scale)
        lr_image = rounded(F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False))
        return lr_image if many else lr_image[0]
