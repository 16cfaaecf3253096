"""A velocity model that works tile by tile, so that memory does not grow with the image."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.protocols import VelocityModel


class TiledVelocity:
    """Evaluates a velocity model on overlapping tiles of the latents and blends the velocities with smooth weights.

    Being a velocity model itself, it goes wherever one goes; the state stays global, so the noise of multi-step sampling is
    one noise, and every tile counts its positions from zero, as in training.

    Args:
        velocity: the model.
        tile: side of a tile in latent positions; even, for FLUX's 2x2 patches. Latents no larger pass through whole.
        overlap: of neighbouring tiles in latent positions, at least.

    Raises:
        ValueError: if ``tile`` is not even and positive, or ``overlap`` not in ``[0, tile)``.
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
        height, width = xt.shape[-2:]
        if height <= self.tile and width <= self.tile:
            return self.velocity(xt, t)
        total = torch.zeros_like(xt, dtype=torch.promote_types(xt.dtype, torch.float32))
        weight = torch.zeros(1, 1, height, width, device=xt.device, dtype=total.dtype)
        for top, rows in self._spans(height):
            for left, columns in self._spans(width):
                window = (..., slice(top, top + len(rows)), slice(left, left + len(columns)))
                share = torch.outer(rows, columns).to(weight)
                total[window] += self.velocity(xt[window], t) * share
                weight[window] += share
        return total / weight

    def _spans(self, length: int) -> list[tuple[int, Tensor]]:
        """Return each tile's start along one side, and its weights: a ramp over the overlap, never zero."""
        size = min(self.tile, length)
        count = -(-(length - self.overlap) // (self.tile - self.overlap)) if length > size else 1
        # Even starts keep every tile on the same 2x2 patch grid as the whole image.
        starts = [2 * round((length - size) * i / (2 * max(count - 1, 1))) for i in range(count)]
        distance = torch.arange(size, dtype=torch.float32) + 1
        ramp = torch.minimum(distance, distance.flip(0)).clamp(max=max(self.overlap, 1)) / max(self.overlap, 1)
        return [(start, ramp) for start in starts]
