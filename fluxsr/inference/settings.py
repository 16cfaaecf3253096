"""Defines how a picture is upscaled, the same for all pictures of a batch, and checks it before work begins."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple

SCALE = 4.0  # of a student that does not say what it was trained for


class Sizes(NamedTuple):
    """How large results become: one of an exact size, the longest side, the width, the height, or else the scale."""

    scale: float = SCALE
    size: tuple[int, int] | None = None  # (height, width)
    longest: int | None = None
    width: int | None = None
    height: int | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of a result, at least 1.

        Raises:
            ValueError: For a scale or a size that is not positive, or more than one size.
        """
        given = {name: value for name, value in self._asdict().items() if name != "scale" and value is not None}
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(given)}: each of them decides on the size")
        for name, value in given.items():
            if name == "size":
                sides = tuple(value) if isinstance(value, Iterable) else ()
                if len(sides) != 2 or not all(_is_pixels(side) for side in sides):
                    raise ValueError(f"size must be two positive numbers of pixels, (height, width), got {value!r}")
                return int(sides[0]), int(sides[1])
            if not _is_pixels(value):
                raise ValueError(f"{name} must be a positive number of pixels, got {value!r}")
            original = {"longest": max(height, width), "width": width, "height": height}[name]
            return max(1, round(height * value / original)), max(1, round(width * value / original))
        scale = self.scale
        if not isinstance(scale, Real) or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, got {scale!r}; 4 is what the models are trained for")
        return max(1, round(height * scale)), max(1, round(width * scale))


def _is_pixels(side: Any) -> bool:
    """Whether it is a whole positive number; a fraction of a pixel would be cut off silently."""
    return isinstance(side, Real) and float(side) >= 1 and float(side).is_integer()


class Settings(NamedTuple):
    """What is the same for all files of a batch; as for :func:`fluxsr.inference.upscale_files`."""

    sizes: Sizes = Sizes()
    steps: int = 1
    max_pixels: int = 100_000_000
    strength: float = 1.0
    quality: int | None = None


def check_numbers(steps: int, strength: float) -> None:
    """Check the number of steps and the strength."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= strength <= 2:
        raise ValueError(f"strength must lie in [0, 2], got {strength}")
