"""Pixel losses, called ``loss(sr_image, hr_image)``."""

from __future__ import annotations

from torch import Tensor, nn

from fluxsr.losses import functional


class MSELoss(nn.Module):
    """:func:`fluxsr.losses.functional.mse` as a module."""

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar loss of two ``(B, C, H, W)`` images in [0, 1]."""
        return functional.mse(sr_image, hr_image)


class L1Loss(nn.Module):
    """:func:`fluxsr.losses.functional.l1` as a module."""

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar loss of two ``(B, C, H, W)`` images in [0, 1]."""
        return functional.l1(sr_image, hr_image)


class CharbonnierLoss(nn.Module):
    """:func:`fluxsr.losses.functional.charbonnier` as a module.

    Args:
        epsilon: width of the smooth part, in units of the image; positive.

    Raises:
        ValueError: ``epsilon`` isn't positive.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"epsilon={epsilon} must be positive")
        self.epsilon = epsilon

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar loss of two ``(B, C, H, W)`` images in [0, 1]."""
        return functional.charbonnier(sr_image, hr_image, self.epsilon)

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"epsilon={self.epsilon}"
