"""Resizes as MATLAB's ``imresize(image, "bicubic")``, which made the field's LR images, its bicubic rows, and NIQE's scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def imresize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, H, W)`` to ``size`` (height, width) with Keys' kernel (a = -0.5), widened where it shrinks.

    Beyond the border the image is mirrored, its edge repeated, as in MATLAB; torch alone would renormalize the kernel there.
    Values are not clamped.
    """
    for axis, new in ((2, size[0]), (3, size[1])):
        image = _along(image, axis, new)
    return image


def _along(image: Tensor, axis: int, new: int) -> Tensor:
    length = image.shape[axis]
    if length == new:
        return image
    # A whole mirror image on each side keeps ratio and grid whatever the factor: the middle third of the result is ours.
    mirror = image.flip(axis)
    wide = torch.cat([mirror, image, mirror], dim=axis)
    shape = [*image.shape[2:]]
    shape[axis - 2] = 3 * new
    resized = F.interpolate(wide, size=shape, mode="bicubic", antialias=True, align_corners=False)
    return resized.narrow(axis, new, new)
