"""Runs a velocity model tile by tile, so that memory does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fluxsr.protocols import VelocityModel


class Span(NamedTuple):
    """The position of one tile along one side.

    Attributes:
        start: First position.
        size: Number of positions.
        weights: ``(size * resolution,)`` float32; those of all tiles sum to one at every point.
    """

    start: int
    size: int
    weights: Tensor


def spans(length: int, tile: int, overlap: int, resolution: int = 1) -> list[Span]:
    """Cover ``length`` positions with tiles that overlap and blend into each other without a kink.

    Tiles are spread evenly, so that none is a sliver at the end. They start at even positions, which keeps all of them on
    the 2x2 patch grid of the whole.

    Args:
        length: Positions to cover; even, where tiles must keep to the patch grid.
        tile: Positions of a tile, even; a shorter length is one tile.
        overlap: Overlap of neighboring tiles in positions, at least; in ``[0, tile)``.
        resolution: Weights per position, for an output that is finer than the positions (decoded pixels).
    """
    size = min(tile, length)
    # The least number of tiles that overlap by `overlap`: each but the first adds tile - overlap positions.
    count = -(-(length - overlap) // (tile - overlap)) if length > size else 1
    # Rounded in steps of 2, since a tile that began at an odd position would cut FLUX's 2x2 patches in two.
    starts = [2 * round((length - size) * i / (2 * max(count - 1, 1))) for i in range(count)]
    # sin^2 and its mirror image sum to one with a continuous slope; the division below settles wider overlaps.
    ramp_length = max(overlap, 1) * resolution
    distance = torch.arange(size * resolution) + 0.5
    ramp = (
        (torch.minimum(distance, distance.flip(0)).clamp(max=ramp_length) * (math.pi / 2 / ramp_length)).sin().square()
    )
    total = torch.zeros(length * resolution)
    windows = [slice(start * resolution, (start + size) * resolution) for start in starts]
    for window in windows:
        total[window] += ramp
    return [Span(start, size, ramp / total[window]) for start, window in zip(starts, windows, strict=True)]


class TiledVelocity:
    """Evaluates a velocity model on overlapping tiles of the latents and blends the velocities with smooth weights.

    It is a velocity model itself and takes the place of one. The state stays global, so multi-step sampling has one noise
    for the whole image. Every tile counts its positions from zero, as in training.

    Args:
        velocity: The model.
        tile: Side of a tile in latent positions; even, for FLUX's 2x2 patches. Latents no larger pass through whole.
        overlap: Overlap of neighboring tiles in latent positions, at least.

    Raises:
        ValueError: If ``tile`` is not even and positive, or ``overlap`` not in ``[0, tile)``.
    """

    def __init__(self, velocity: VelocityModel, tile: int, overlap: int) -> None:
        if tile < 2 or tile % 2:
            raise ValueError(f"tile must be an even number of latent positions, at least 2, got {tile}")
        if not 0 <= overlap < tile:
            raise ValueError(f"overlap must lie in [0, tile) = [0, {tile}), got {overlap}")
        self.velocity = velocity
        self.tile = tile
        self.overlap = overlap

    def __call__(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return the blended velocity at ``xt`` ``(B, C, h, w)``, ``t`` ``(B,)``."""
        return in_tiles(lambda window: self.velocity(window, t), xt, self.tile, self.overlap)


def in_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, reads: int = 1, writes: int = 1
) -> Tensor:
    """Apply a function to overlapping tiles and blend the results with smooth weights; what is one tile passes through whole.

    Args:
        function: Function from ``(B, C, reads h, reads w)`` to ``(B, D, writes h, writes w)``.
        x: The whole input, ``(B, C, reads H, reads W)``.
        tile, overlap: Side of a tile, and least overlap of neighbors, in positions.
        reads, writes: Input and output points along one side of a position: an autoencoder's downsampling.
    """
    height, width = x.shape[-2] // reads, x.shape[-1] // reads
    if height <= tile and width <= tile:
        return function(x)
    total: Tensor | None = None
    for row in spans(height, tile, overlap, writes):
        for column in spans(width, tile, overlap, writes):
            read, written = (
                (
                    ...,
                    slice(row.start * side, (row.start + row.size) * side),
                    slice(column.start * side, (column.start + column.size) * side),
                )
                for side in (reads, writes)
            )
            made = function(x[read])
            if total is None:
                kind = torch.promote_types(made.dtype, torch.float32)
                total = made.new_zeros((*made.shape[:2], height * writes, width * writes), dtype=kind)
            total[written] += made * torch.outer(row.weights, column.weights).to(total)
    assert total is not None
    return total
