"""Removes the grid that a transformer's tokens leave: the part of a result's change that repeats from token to token."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, pad, pixel_shuffle, pixel_unshuffle

from fluxsr.inference.strips import RowSource

# Tokens on each side that are averaged with a token. Fewer would take texture for a grid, more would miss a grid that changes.
REACH = 8


def token_grid(change: Tensor, period: int, reach: int = REACH) -> Tensor:
    """Return the grid in the change that a model made to an image.

    A grid is what the places inside of a token have in common with the same places of the tokens around it. So each place is
    averaged over ``2 reach + 1`` tokens along both sides. Detail averages out, as it does not repeat with the tokens. What is
    smooth is taken out before: a slope would otherwise look like a step in every token.

    Together this is a linear filter that passes only the frequencies ``k / period`` and their close neighbors. It is our own.

    Args:
        change: The restored minus the enlarged image, ``(C, H, W)``; sides are multiples of ``period``.
        period: Side of a token in pixels.
        reach: Tokens on each side that are averaged with a token.

    Returns:
        The grid, of the same shape. Its mean over every whole token is zero.
    """
    channels, height, width = change.shape
    before = period // 2
    wide = pad(change[None], (before, period - 1 - before) * 2, mode="replicate")
    # An average over one period has no grid left in it.
    detail = change - avg_pool2d(wide, period, stride=1)[0]
    places = pixel_unshuffle(detail, period)
    common = avg_pool2d(places[None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)[0]
    common = common.view(channels, period**2, height // period, width // period)
    return pixel_shuffle((common - common.mean(dim=1, keepdim=True)).view_as(places), period)


def enough_tokens(size: tuple[int, int], period: int) -> bool:
    """Return whether an image (height, width) has so many tokens that a grid differs from the image's own detail."""
    return min(size) >= (2 * REACH + 1) * period


class WithoutGrid:
    """Rows of a restored image without the grid of its tokens; itself a source of rows."""

    def __init__(self, restored: RowSource, enlarged: RowSource, height: int, period: int) -> None:
        self.restored = restored
        self.enlarged = enlarged
        self.height = height
        self.period = period

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)`` as ``(C, bottom - top, W)``."""
        # Whole tokens, and one more for the average over one period.
        beyond = (REACH + 1) * self.period
        first = max(0, top // self.period * self.period - beyond)
        last = min(self.height, -(-bottom // self.period) * self.period + beyond)
        restored = self.restored.rows(first, last)
        grid = token_grid(restored - self.enlarged.rows(first, last), self.period)
        return (restored - grid)[:, top - first : bottom - first]


class Trimmed:
    """The rows of an image inside of its true width and of [0, 1]; itself a source of rows."""

    def __init__(self, rows: RowSource, width: int) -> None:
        self.source = rows
        self.width = width

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)``."""
        return self.source.rows(top, bottom)[..., : self.width].clamp(0, 1)
