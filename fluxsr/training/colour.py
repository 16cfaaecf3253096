"""The luma of an image, and the PSNR that is computed on it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio


def luma(image: Tensor) -> Tensor:
    """Return the BT.601 luma ``(B, 1, H, W)`` in ``[16/255, 235/255]`` of RGB images ``(B, 3, H, W)`` in ``[0, 1]``.

    The same studio-swing luma as MATLAB's ``rgb2ycbcr``, which the field's tables use.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device, dtype=image.dtype) / 255
    return torch.einsum("bchw,c->bhw", image, weights)[:, None] + 16 / 255


def psnr_y(image: Tensor, target: Tensor) -> Tensor:
    """Mean over images of the PSNR in dB of the BT.601 luma; both ``(B, 3, H, W)`` in ``[0, 1]``."""
    return peak_signal_noise_ratio(
        luma(image), luma(target), data_range=(0.0, 1.0), dim=(1, 2, 3), reduction="elementwise_mean"
    )
