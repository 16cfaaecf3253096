"""Fixes colors: the restored image takes its own from the enlarged original, and what nobody sees those around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from fluxsr.images.convert import Pixels, has_alpha, to_tensor
from fluxsr.inference.strips import RowSource

# One level more than the five that are usual: noise and JPEG blocks reach the fifth, and would come back with the colors.
LEVELS = 6
# How far a pixel reaches through the filters of all levels: 1 + 2 + 4 + 8 + 16 + 32.
REACH = 2**LEVELS - 1


def lowpass(image: Tensor) -> Tensor:
    """Return the low frequencies of ``(C, H, W)``: the residual of an a-trous wavelet transform of six levels.

    Each level is the kernel (1, 2, 1) / 4 along both sides, its taps 1, 2, 4, 8, 16 and 32 pixels apart. The last row and
    column are repeated beyond the border.
    """
    for level in range(LEVELS):
        step = 2**level
        for axis, sides in ((1, (0, 0, step, step)), (2, (step, step, 0, 0))):
            length = image.shape[axis]
            wide = pad(image[None], sides, mode="replicate")[0]
            before, after = wide.narrow(axis, 0, length), wide.narrow(axis, 2 * step, length)
            image = torch.add(before, after).add_(image, alpha=2).mul_(0.25)
    return image


def rows_around(read: Callable[[int, int], Tensor], top: int, bottom: int, height: int) -> tuple[Tensor, slice]:
    """Return rows ``[top, bottom)`` with what :func:`lowpass` needs around them, and where they are in it."""
    first = max(0, top - REACH)
    return read(first, min(height, bottom + REACH)), slice(top - first, bottom - first)


def wavelet_rows(restored: RowSource, enlarged: RowSource, top: int, bottom: int, height: int) -> Tensor:
    """Return rows ``[top, bottom)`` of ``restored`` with the low frequencies of ``enlarged``.

    The filter is linear, so exchanging low frequencies is one filtering of the difference.
    """

    def both(first: int, last: int) -> Tensor:
        image = restored.rows(first, last)
        return torch.stack([image, enlarged.rows(first, last)[..., : image.shape[-1]] - image])

    (image, difference), inner = rows_around(both, top, bottom, height)
    return image[:, inner] + lowpass(difference)[:, inner]


class PixelRows:
    """The rows of an image, in RGB and, apart from that, in alpha.

    Editors leave any color in pixels that nobody sees, mostly black, and enlarging would smear it into the visible edge. So
    colors at alpha 0 are replaced by those of the visible pixels around them.
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.size: tuple[int, int] = pixels.shape[:2]

    def color(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)`` of the colors, ``(3, bottom - top, W)``."""
        if has_alpha(self._pixels):
            rows = self._filled(top, bottom)
        else:
            rows = to_tensor(self._pixels[top:bottom])
        return rows.expand(3, -1, -1)

    def alpha(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)`` of the alpha channel, ``(1, bottom - top, W)``."""
        return to_tensor(self._pixels[top:bottom, :, -1:])

    def _filled(self, top: int, bottom: int) -> Tensor:
        rows = to_tensor(self._pixels[top:bottom])
        color, alpha = rows[:-1], rows[-1:]
        if bool((alpha > 0).all()):
            return color
        wide, inner = rows_around(lambda a, b: to_tensor(self._pixels[a:b]), top, bottom, self.size[0])
        # A normalized average: of the visible colors, over the share of them that is in reach.
        weighted = lowpass(torch.cat([wide[:-1] * wide[-1:], wide[-1:]]))[:, inner]
        share = weighted[-1:]
        return torch.where(alpha > 0, color, torch.where(share > 1e-6, weighted[:-1] / share.clamp(min=1e-6), color))


class Moments:
    """Running mean and variance of each channel, over strips ``(C, h, W)``."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in further rows."""
        values = rows.flatten(1).double()
        self.count += values.shape[1]
        self.sum = self.sum + values.sum(dim=1)
        self.squares = self.squares + values.square().sum(dim=1)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation ``(C,)`` of all rows so far, float64."""
        mean = self.sum / self.count
        return mean, (self.squares / self.count - mean.square()).clamp(min=0).sqrt()


def adain(restored: Moments, enlarged: Moments) -> tuple[Tensor, Tensor]:
    """Return gain and shift ``(C, 1, 1)`` that give the restored image the channel means and deviations of the enlarged."""
    mean, deviation = restored.mean_and_deviation()
    wanted_mean, wanted_deviation = enlarged.mean_and_deviation()
    # A channel without contrast has none to scale.
    gain = torch.where(deviation > 1e-4, wanted_deviation / deviation.clamp(min=1e-4), torch.ones_like(deviation))
    return gain.float()[:, None, None], (wanted_mean - gain * mean).float()[:, None, None]
