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
        if image.shape[axis] != new:
            # A whole mirror image on each side keeps ratio and grid whatever the factor: the middle third is ours.
            wide = torch.cat([image.flip(axis), image, image.flip(axis)], dim=axis)
            shape = [3 * new if one == axis else image.shape[one] for one in (2, 3)]
            wide = F.interpolate(wide, size=shape, mode="bicubic", antialias=True, align_corners=False)
            image = wide.narrow(axis, new, new)
    return image


def rounded(image: Tensor) -> Tensor:
    """Return an image in ``[0, 1]`` as an 8-bit file would have it."""
    return (image.clamp(0, 1) * 255).round() / 255
