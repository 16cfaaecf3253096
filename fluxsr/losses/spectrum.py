"""Measures grids with the period of a transformer's tokens, and provides a loss that trains them away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.losses._checks import FirstBatch, at_least_float32, check_images
from fluxsr.losses._reduction import Reduction, check_reduction, reduced

# Where the background of a peak is read: the Hann window spreads a line over the bins next to it.
_BESIDE = (-4, -3, -2, 2, 3, 4)
# A grid of a third of a gray level can't be seen on any photo. Its square is added to the photo's own spectrum.
_INVISIBLE = 1 / (3 * 255)


def patch_artefact_energy(image: Tensor, period: int = 16) -> Tensor:
    """Energy of the spectrum at the patch period and its harmonics, over that of the frequencies beside them, in dB.

    A transformer that treats its patches a little differently leaves a grid, whose spectrum has peaks at the
    frequencies ``k / period`` along rows and columns. Each peak of the averaged row and column spectra is compared with the
    mean of its neighbors on both sides, and the mean over the harmonics below Nyquist is returned.

    Args:
        image: ``(B, C, H, W)``; both sides at least 8 periods. Channels are averaged.
        period: Period in pixels; 16 on FLUX (8 of the autoencoder times 2 of the packing).

    Returns:
        ``(B,)`` float32 in dB: about 0 without such artefacts, above 3 where a grid can be seen. Our definition: the papers
        show the artefact and give no number.

    Raises:
        ValueError: If ``period`` is below 2 or the image is smaller than 8 periods.
    """
    if image.ndim != 4:
        raise ValueError(f"image must have shape (B, C, H, W), got {tuple(image.shape)}")
    _check_period(image, period)
    gray = image.float().mean(dim=1, keepdim=True)
    floor = torch.finfo(torch.float32).tiny
    both = [_Peaks.of(one, period) for one in (gray, gray.transpose(2, 3))]
    decibels = [10 * ((one.peaks + floor) / (one.beside + floor)).log10() for one in both]
    return torch.stack(decibels).mean(dim=(0, 2))


def periodicity(sr_image: Tensor, hr_image: Tensor, period: int = 16, *, reduction: Reduction = "mean") -> Tensor:
    """Return how much of the error is a grid of the given period, relative to the photo's own spectrum.

    The spectra of ``sr_image - hr_image`` along rows and columns are read at the frequencies ``k / period`` below Nyquist and
    beside them, where an error without a period has the same energy. With the photo's own spectrum there, ``S_hr``::

        L = mean over k, rows and columns of log(1 + max(0, S(k) - S(beside k)) / S_hr(beside k))

    Ours: OP4KSR (arXiv 2605.13457) trains against the same grid with an autocorrelation, whose formula was not at hand.
    The spectrum leaves out what is smooth by itself. It is zero for a photo against itself, and an error that is no grid is
    not asked to become smaller: other losses do that.

    Shape: two ``(B, C, H, W)`` to a scalar, or ``(B,)`` with ``reduction="none"``. Range: [0, inf), grows with the logarithm
    of the grid's energy.

    Args:
        sr_image: The restored images in [0, 1].
        hr_image: The photos.
        period: Side of a token in pixels: 16 on FLUX (8 of the autoencoder times 2 of the packing).
        reduction: ``"mean"`` over the images, their ``"sum"``, or ``"none"``: one value for each image.

    Raises:
        ValueError: If they are not two floating images of one shape, if a side is smaller than 8 periods, or for an unknown
            reduction.
    """
    check_reduction(reduction)
    check_images(sr_image, hr_image)
    _check_period(sr_image, period)
    photo = at_least_float32(hr_image)
    error = at_least_float32(sr_image) - photo
    values = []
    for turned in (False, True):
        mine, own = (_Peaks.of(x.transpose(2, 3) if turned else x, period) for x in (error, photo))
        values.append(torch.log1p((mine.peaks - mine.beside).relu() / (own.beside + own.white(_INVISIBLE))))
    return reduced(torch.stack(values).mean(dim=(0, 2)), reduction)


class PeriodicityLoss(nn.Module):
    """:func:`fluxsr.losses.functional.periodicity` as a module: trains the grid away that a transformer's tokens leave.

    Args:
        period: Side of a token in pixels: 16 on FLUX.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.

    Raises:
        ValueError: If ``period`` is below 2 or the reduction unknown.

    Example:
        >>> import torch
        >>> photo = torch.rand(1, 3, 128, 128)
        >>> loss = PeriodicityLoss(period=16)
        >>> loss(photo, photo).item()
        0.0
    """

    def __init__(self, period: int = 16, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        if period < 2:
            raise ValueError(f"period must be at least 2 pixels, got {period}")
        self.period = period
        self.reduction = reduction
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the loss of two ``(B, C, H, W)`` images in [0, 1], both sides at least 8 periods long."""
        value = periodicity(sr_image, hr_image, self.period, reduction=self.reduction)
        self._check_first(sr_image, hr_image)
        return value

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"period={self.period}"


class _Peaks(NamedTuple):
    """The row spectra of images at the harmonics of a period, averaged over rows and channels.

    Attributes:
        peaks: Energies at the harmonics ``(B, K)``.
        beside: Mean energies of the frequencies beside them ``(B, K)``.
        window: The square sum of the window, by which white noise is scaled.
    """

    peaks: Tensor
    beside: Tensor
    window: Tensor

    @classmethod
    def of(cls, image: Tensor, period: int) -> _Peaks:
        """Measure images ``(B, C, H, W)`` along their rows."""
        repeats = image.shape[-1] // period
        rows = image[..., : repeats * period]  # whole periods, so that every harmonic falls on one bin
        window = torch.hann_window(repeats * period, device=image.device, dtype=image.dtype)
        spectrum = torch.fft.rfft((rows - rows.mean(dim=-1, keepdim=True)) * window).abs().square().mean(dim=(1, 2))
        bins = torch.arange(1, max(2, (period + 1) // 2), device=image.device) * repeats
        around = (bins[:, None] + torch.tensor(_BESIDE, device=image.device)).clamp(1, spectrum.shape[-1] - 1)
        return cls(spectrum[:, bins], spectrum[:, around].mean(dim=-1), window.square().sum())

    def white(self, deviation: float) -> Tensor:
        """Return the energy that white noise of this standard deviation has at every frequency."""
        return deviation**2 * self.window


def _check_period(image: Tensor, period: int) -> None:
    if period < 2:
        raise ValueError(f"period must be at least 2 pixels, got {period}")
    if min(image.shape[-2:]) < 8 * period:
        height, width = image.shape[-2:]
        raise ValueError(f"the image needs at least 8 periods = {8 * period} pixels a side, got {height}x{width}")
