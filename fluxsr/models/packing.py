"""Packs latents into FLUX's tokens: 2x2 latent positions are one token, with row and column ids for the rotary embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """Pack latents ``(B, C, h, w)`` into tokens ``(B, h/2 * w/2, 4C)``, channels first inside a token as in FLUX.

    Raises:
        ValueError: If the latents are not four-dimensional or a side is odd.
    """
    if latents.ndim != 4:
        raise ValueError(f"latents must have shape (B, C, h, w), got {tuple(latents.shape)}")
    height, width = latents.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(
            f"latents of {height}x{width} don't divide into FLUX's 2x2 patches; "
            "make both sides of the image a multiple of twice the autoencoder's downsampling"
        )
    return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`pack` for latents of ``height`` x ``width``."""
    batch, _, channels = tokens.shape
    grid = tokens.transpose(1, 2).reshape(batch, channels, height // 2, width // 2)
    return torch.nn.functional.pixel_shuffle(grid, 2)


def image_ids(height: int, width: int, device: torch.device | None = None, axes: int = 3) -> Tensor:
    """Return the position ids ``(h/2 * w/2, axes)`` of packed latents: zero, row, column, and zeros (FLUX.2 has four)."""
    rows = torch.arange(height // 2, device=device, dtype=torch.float32)
    columns = torch.arange(width // 2, device=device, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)
    return torch.nn.functional.pad(grid, (1, axes - 3))
