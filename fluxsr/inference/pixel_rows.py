"""Converts rows of an array of pixels to tensors, with sane colors where nothing is visible."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.images.convert import Pixels, has_alpha, to_tensor
from fluxsr.inference.color import lowpass, rows_around


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
