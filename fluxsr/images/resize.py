"""Resizes bicubically: as MATLAB does for measures, and strip by strip as the students' inputs are enlarged."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# The kernel's constant in torch's `interpolate`, with which the students' inputs were enlarged in training.
_A = -0.75


class Resized:
    """An image resized bicubically, of which any range of rows can be had; values are clamped to ``[0, 1]``.

    Enlarging is ``interpolate(mode="bicubic", align_corners=False)`` with coordinates in float64; shrinking widens the
    kernel by the factor, since samples would alias.

    Args:
        read: Gives the original's rows ``[top, bottom)`` as ``(C, bottom - top, W)`` in ``[0, 1]``.
        original: Its (height, width).
        size: The result's.
        padded: (height, width) up to which the last row and column are repeated; ``size`` by default.
    """

    def __init__(
        self,
        read: Callable[[int, int], Tensor],
        original: tuple[int, int],
        size: tuple[int, int],
        padded: tuple[int, int] | None = None,
    ) -> None:
        self._read = read
        self._height, self._new_height = original[0], size[0]
        self._columns = bicubic_taps(original[1], size[1], 0, (padded or size)[1])

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)`` of the result."""
        index, weight = bicubic_taps(self._height, self._new_height, top, bottom)
        first = int(index.min())
        block = self._read(first, int(index.max()) + 1)
        # Columns first: picking them is the slower half, and an enlarged image has fewer rows before than after.
        columns, column_weights = self._columns
        block = _mix([block[:, :, tap] for tap in columns], list(column_weights))
        return _mix([block[:, tap - first] for tap in index], list(weight[:, :, None])).clamp_(0, 1)


def _mix(parts: list[Tensor], weights: list[Tensor]) -> Tensor:
    total = parts[0] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total.addcmul_(part, weight)
    return total


def bicubic_taps(length: int, new_length: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return which of ``length`` points make the points ``[start, stop)`` of ``new_length``, and their weights.

    Returns:
        Two tensors ``(taps, stop - start)``: indices, and float32 weights that sum to one over the taps. Points past the end
        are the last one again.
    """
    ratio = length / new_length
    stretch = max(1.0, ratio)
    center = (torch.arange(start, stop, dtype=torch.float64).clamp(max=new_length - 1) + 0.5) * ratio - 0.5
    first = (center - 2 * stretch).floor() + 1
    index = first + torch.arange(math.ceil(4 * stretch), dtype=torch.float64)[:, None]
    weight = _cubic((index - center).abs() / stretch)
    return index.long().clamp(0, length - 1), (weight / weight.sum(dim=0)).float()


def _cubic(x: Tensor) -> Tensor:
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def imresize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, H, W)`` to (height, width) as MATLAB's bicubic ``imresize``, which benchmarks and NIQE are made with.

    Keys' kernel has a = -0.5, and is widened where it shrinks. Beyond the border the image is mirrored, its edge repeated;
    torch alone would renormalize the kernel there. Values are not clamped.
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
