"""Makes batches of the shapes that a data module serves, before its files exist."""

from __future__ import annotations

from typing import Any

import torch

from fluxsr.data import SRBatch, SRDataModule
from fluxsr.training import OneStepSR


def make_batch(module: OneStepSR, data: SRDataModule, device: str = "meta") -> SRBatch:
    """Return a training batch of the shapes that a data module serves.

    Raises:
        ValueError: If its crops have no fixed size.
    """
    if data.crop is None:
        raise ValueError("data.crop is null, so the images' size is not known: give --data.crop, in pixels")
    batch, side = data.batch_size, data.crop
    hr_image = torch.rand(batch, 3, side, side, device=device)
    lr_image = torch.rand(batch, 3, side // data.scale, side // data.scale, device=device)
    index = torch.arange(batch, device=device)
    if data.pairs is None or data.photos is not None:  # a mixture brings no latents
        return SRBatch(hr_image, lr_image, index)
    autoencoder: Any = module.autoencoder
    small = side // autoencoder.downsample
    latents = torch.randn(2, batch, autoencoder.latent_channels, small, small, device=device)
    return SRBatch(hr_image, lr_image, index, latents[0].clone(), latents[1].clone())


def make_validation_batch(data: SRDataModule, photo: tuple[int, int], device: str = "meta") -> SRBatch | None:
    """Return a validation batch of the shapes that a data module serves; ``None`` where it validates on nothing.

    Args:
        data: Data module. With ``val_crop``, batches of such crops; else whole photos, one at a time.
        photo: (height, width) of a whole photo in pixels, which is cut as the data module cuts it.
        device: Device that it is made on.

    Raises:
        ValueError: If the photo is smaller than what its sides are cut to multiples of.
    """
    if data.val_photos is None:
        return None
    batch, sides = (1, photo) if data.val_crop is None else (data.batch_size, (data.val_crop, data.val_crop))
    if data.val_crop is None:
        multiple = data.val_multiple_of or data.scale
        sides = (sides[0] // multiple * multiple, sides[1] // multiple * multiple)
        if not all(sides):
            raise ValueError(
                f"a photo of {photo[1]}x{photo[0]} can't be cut to multiples of {multiple}: plan a larger one"
            )
    hr_image = torch.rand(batch, 3, *sides, device=device)
    lr_image = torch.rand(batch, 3, *(side // data.scale for side in sides), device=device)
    return SRBatch(hr_image, lr_image, torch.arange(batch, device=device))
