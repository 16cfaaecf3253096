"""Resizes bicubically: as MATLAB does for measures, and strip by strip as the students' inputs are enlarged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# The kernel's constant in torch's `interpolate`, with which the students' inputs were enlarged in training.
_A = -0.75


def output_size(
    height: int,
    width: int,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    *,
    longest: int | None = None,
    to_width: int | None = None,
    to_height: int | None = None,
) -> tuple[int, int]:
    """Return the (height, width) of a result, at least 1.

    Args:
        height: Height of the original.
        width: Width of the original.
        scale: Magnification of each side, where none of the others is given.
        size: (height, width) itself.
        longest: Longest side; the other one follows, and so for the next two.
        to_width: Width.
        to_height: Height.

    Raises:
        ValueError: For a scale or a size that is not positive, or more than one size.
    """
    sizes = {"size": size, "longest": longest, "width": to_width, "height": to_height}
    given = {name: value for name, value in sizes.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(given)}: each of them decides on the size")
    if size is not None:
        sides = tuple(size) if isinstance(size, Iterable) else ()
        if len(sides) != 2 or not all(_is_pixels(side) for side in sides):
            raise ValueError(f"size must be two positive numbers of pixels, (height, width), got {size!r}")
        return int(sides[0]), int(sides[1])
    for name, side, original in (
        ("longest", longest, max(height, width)),
        ("width", to_width, width),
        ("height", to_height, height),
    ):
        if side is not None:
            if not _is_pixels(side):
                raise ValueError(f"{name} must be a positive number of pixels, got {side!r}")
            return max(1, round(height * side / original)), max(1, round(width * side / original))
    if not isinstance(scale, Real) or not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number, got {scale!r}; 4 is what the models are trained for")
    return max(1, round(height * scale)), max(1, round(width * scale))


def _is_pixels(side: Any) -> bool:
    """Whether it is a whole positive number; a fraction of a pixel would be cut off silently."""
    return isinstance(side, Real) and float(side) >= 1 and float(side).is_integer()


def is_stretched(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether a size changes the shape of a picture, by more than rounding and a hundredth."""
    factor = math.sqrt(new_height * new_width / (height * width))
    rounded = abs(height * factor - new_height) <= 1 and abs(width * factor - new_width) <= 1
    return not rounded and abs(new_width * height / (new_height * width) - 1) > 0.01


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
