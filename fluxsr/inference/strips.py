"""Computes images as strips of rows: each stage of upscaling asks the one before it for the rows that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from fluxsr.models.tiling import spans


class RowSource(Protocol):
    """What can hand out rows of an image or of latents."""

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)`` as ``(C, bottom - top, W)`` float32."""
        ...


class RowBuffer:
    """Row ranges of what arrives as consecutive strips; rows above the last range asked for are forgotten.

    So ranges may overlap, but must not go back: ``top`` never falls from one call to the next.
    """

    def __init__(self, strips: Iterator[Tensor]) -> None:
        self._strips = strips
        self._kept: list[Tensor] = []
        self._top = 0

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[top, bottom)``, drawing as many strips as that takes."""
        assert top >= self._top, f"rows from {top} on were asked for, those above {self._top} are gone"
        end = self._top + sum(strip.shape[1] for strip in self._kept)
        while end < bottom:
            self._kept.append(next(self._strips))
            end += self._kept[-1].shape[1]
        while self._kept and self._top + self._kept[0].shape[1] <= top:
            self._top += self._kept.pop(0).shape[1]
        block = self._kept[0] if len(self._kept) == 1 else torch.cat(self._kept, dim=1)
        return block[:, top - self._top : bottom - self._top]


def blended(
    function: Callable[[Tensor], Tensor],
    source: RowSource,
    size: tuple[int, int],
    *,
    tile: int,
    overlap: int,
    batch: int = 1,
    reads: int = 1,
    writes: int = 1,
) -> Iterator[Tensor]:
    """Apply ``function`` to overlapping tiles of ``source`` and blend its results smoothly, one row of tiles at a time.

    What is yielded is what the same tiles would give on the whole, to the last rounding; only a row of tiles is in memory.

    Args:
        function: Maps ``(B, C, n * reads, m * reads)`` to ``(B, D, n * writes, m * writes)``.
        source: Has ``size[0] * reads`` rows.
        size: Height and width in positions.
        tile: Side of a tile in positions, even.
        overlap: Overlap of neighboring tiles in positions, at least.
        batch: Tiles handed to ``function`` at a time.
        reads: Source points along one side of a position.
        writes: Result points along one side of a position.

    Yields:
        Consecutive strips ``(D, any height, size[1] * writes)``.
    """
    rows, columns = (spans(length, tile, overlap, writes) for length in size)
    pending: Tensor | None = None  # of the tiles above, the rows that the next tiles still add to
    for number, row in enumerate(rows):
        strip = source.rows(row.start * reads, (row.start + row.size) * reads)
        total: Tensor | None = None
        for first in range(0, len(columns), batch):
            group = columns[first : first + batch]
            windows = [strip[..., span.start * reads : (span.start + span.size) * reads] for span in group]
            for span, result in zip(group, function(torch.stack(windows)), strict=True):
                if total is None:
                    total = result.new_zeros(result.shape[0], row.size * writes, size[1] * writes)
                share = torch.outer(row.weights, span.weights)
                total[..., span.start * writes : (span.start + span.size) * writes] += result * share
        assert total is not None
        if pending is not None:
            total[:, : pending.shape[1]] += pending
        following = rows[number + 1].start if number + 1 < len(rows) else size[0]
        finished = (following - row.start) * writes
        yield total[:, :finished]
        pending = total[:, finished:]
