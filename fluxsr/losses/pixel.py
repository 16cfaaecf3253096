"""Implements pixel losses, called ``loss(sr_image, hr_image)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fluxsr.losses import functional
from fluxsr.losses._checks import FirstBatch
from fluxsr.losses._reduction import Reduction, check_reduction


class PixelLoss(nn.Module, ABC):
    """Base of the losses that compare pixel with pixel; they serve for latents too, which have no fixed range.

    Args:
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of two ``(B, C, H, W)`` images in [0, 1].

        Args:
            sr_image, hr_image: The restored images and the references.
            mask: Weights of the pixels, not negative, ``(B or 1, C or 1, H, W)``; see :func:`fluxsr.losses.functional.mse`.

        Raises:
            ValueError: Not two floating images of one shape, a mask that doesn't fit, values up to 255 in the first images, or
                negative ones in the first mask.
        """
        value = self.measure(sr_image, hr_image, mask)
        self._check_first.mask(mask)
        if sr_image.shape[1] in (1, 3):  # an image; latents have other numbers of channels
            self._check_first(sr_image, hr_image)
        return value

    @abstractmethod
    def measure(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None) -> Tensor:
        """Return the reduced distance of two ``(B, C, H, W)`` tensors."""


class MSELoss(PixelLoss):
    """:func:`fluxsr.losses.functional.mse` as a module; see :class:`PixelLoss`."""

    def measure(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean squared error."""
        return functional.mse(sr_image, hr_image, mask=mask, reduction=self.reduction)


class L1Loss(PixelLoss):
    """:func:`fluxsr.losses.functional.l1` as a module; see :class:`PixelLoss`."""

    def measure(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean absolute error."""
        return functional.l1(sr_image, hr_image, mask=mask, reduction=self.reduction)


class CharbonnierLoss(PixelLoss):
    """:func:`fluxsr.losses.functional.charbonnier` as a module.

    Args:
        epsilon: Width of the smooth part, in units of the image; positive.
        reduction: See :class:`PixelLoss`.

    Raises:
        ValueError: ``epsilon`` isn't positive.
    """

    def __init__(self, epsilon: float = 1e-3, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        if not epsilon > 0:
            raise ValueError(f"epsilon={epsilon} must be positive")
        self.epsilon = epsilon

    def measure(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean of the smoothed absolute error."""
        return functional.charbonnier(sr_image, hr_image, self.epsilon, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"epsilon={self.epsilon}"
