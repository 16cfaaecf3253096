"""Checks whether two readers of one file see the same picture."""

from __future__ import annotations

import numpy as np

from fluxsr.images.convert import Pixels, color_count, has_alpha, to_eight_bit

_SAMPLES = 256  # rows and columns that are compared
_LARGEST = 3.0  # of 255, in the mean: rounding is below 1, a picture of other colors far above


def agree(deep: Pixels, plain: Pixels) -> bool:
    """Whether pixels at full depth are those that another reader has, at 8 bit maybe.

    Colors count as much as they are visible. A side that has alpha where the other one has none is compared in its colors.
    """
    if deep.shape[:2] != plain.shape[:2]:
        return False
    every = tuple(max(1, side // _SAMPLES) for side in deep.shape[:2])
    one, other = (to_eight_bit(pixels[:: every[0], :: every[1]]).astype(np.float64) for pixels in (deep, plain))
    if has_alpha(one) and has_alpha(other):
        if np.abs(one[..., -1] - other[..., -1]).mean() > _LARGEST:
            return False
        one, other = (pixels[..., :-1] * (pixels[..., -1:] / 255) for pixels in (one, other))
    # Gray is broadcast: some readers widen it.
    difference = np.abs(one[..., : color_count(deep)] - other[..., : color_count(plain)])
    return bool(difference.mean() <= _LARGEST)
