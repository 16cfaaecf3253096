"""Restores an enlarged image, in tiles where the module says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import pad

from fluxsr.models.tiling import TiledVelocity, in_tiles

if TYPE_CHECKING:
    from fluxsr.training.module import OneStepSR


def restore(module: OneStepSR, image: Tensor, steps: int) -> Tensor:
    """Restore images ``(B, 3, H, W)`` of their final size, in ``[0, 1]``; see :meth:`OneStepSR.restore_image`."""
    side = module.autoencoder.downsample
    height, width = image.shape[-2:]
    padded = pad(image, (0, -width % (2 * side), 0, -height % (2 * side)), mode="replicate")
    tile = max(padded.shape[-2:]) // side if module.tile is None else max(2, module.tile // side // 2 * 2)
    overlap = tile // 4
    latents = in_tiles(module.autoencoder.encode, padded, tile, overlap, reads=side)
    velocity = TiledVelocity(module.velocity(), tile + tile % 2, overlap)
    latents = module.objective.restore(velocity, latents, steps)
    return in_tiles(module.decode, latents, tile, overlap, writes=side)[..., :height, :width].clamp(0, 1)
