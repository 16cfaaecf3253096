"""Computes the PSNR that validation logs."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from fluxsr.losses.functional import luma


def psnr_y(image: Tensor, target: Tensor) -> Tensor:
    """Mean over images of the PSNR in dB of the BT.601 luma; both ``(B, 3, H, W)`` in ``[0, 1]``.

    Args:
        image, target: ``(B, 3, H, W)`` in ``[0, 1]``.
    """
    return peak_signal_noise_ratio(
        luma(image), luma(target), data_range=(0.0, 1.0), dim=(1, 2, 3), reduction="elementwise_mean"
    )
