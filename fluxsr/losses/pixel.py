"""Pixel losses, called ``loss(sr_image, hr_image)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fluxsr.losses import functional
from fluxsr.losses._checks import FirstBatch


class PixelLoss(nn.Module, ABC):
    """Base of the losses that compare pixel with pixel; they serve for latents too, which have no fixed range."""

    def __init__(self) -> None:
        super().__init__()
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar loss of two ``(B, C, H, W)`` images in [0, 1].

        Raises:
            ValueError: not two floating images of one shape, or values up to 255 in the first ones.
        """
        value = self.measure(sr_image, hr_image)
        if sr_image.shape[1] in (1, 3):  # an image; latents have other numbers of channels
            self._check_first(sr_image, hr_image)
        return value

    @abstractmethod
    def measure(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar of two ``(B, C, H, W)`` tensors."""


class MSELoss(PixelLoss):
    """:func:`fluxsr.losses.functional.mse` as a module."""

    def measure(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the mean squared error."""
        return functional.mse(sr_image, hr_image)


class L1Loss(PixelLoss):
    """:func:`fluxsr.losses.functional.l1` as a module."""

    def measure(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the mean absolute error."""
        return functional.l1(sr_image, hr_image)


class CharbonnierLoss(PixelLoss):
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

    def measure(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the mean of the smoothed absolute error."""
        return functional.charbonnier(sr_image, hr_image, self.epsilon)

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"epsilon={self.epsilon}"
