"""How strongly an image carries a periodic artefact: energy of its spectrum at the patch period."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_artefact_energy(image: Tensor, period: int = 16) -> Tensor:
    """Energy of the spectrum at the patch period and its harmonics, over that of the frequencies beside them, in dB.

    A transformer that treats its patches a little differently leaves a grid, whose spectrum has peaks at the
    frequencies ``k / period`` along rows and columns. Each peak of the averaged row and column spectra is compared with the
    mean of its neighbors on both sides, and the mean over the harmonics below Nyquist is returned.

    Args:
        image: ``(B, C, H, W)``; both sides at least 8 periods. Channels are averaged.
        period: in pixels; 16 on FLUX (8 of the autoencoder times 2 of the packing).

    Returns:
        ``(B,)`` float32 in dB: about 0 without such artefacts, above 3 where a grid can be seen. Our definition: the papers
        show the artefact and give no number.

    Raises:
        ValueError: if ``period`` is below 2 or the image is smaller than 8 periods.
    """
    if image.ndim != 4:
        raise ValueError(f"image must have shape (B, C, H, W), got {tuple(image.shape)}")
    if period < 2:
        raise ValueError(f"period must be at least 2 pixels, got {period}")
    if min(image.shape[-2:]) < 8 * period:
        raise ValueError(
            f"the image must be at least 8 periods = {8 * period} pixels a side to tell a peak from its "
            f"neighbors, got {image.shape[-2]}x{image.shape[-1]}"
        )
    gray = image.float().mean(dim=1)
    return (_peaks(gray, period) + _peaks(gray.transpose(1, 2), period)) / 2


def _peaks(gray: Tensor, period: int) -> Tensor:
    """Return the mean peak height in dB of the row spectra of ``(B, H, W)``."""
    repeats = gray.shape[-1] // period
    length = repeats * period  # whole periods, so that every harmonic falls on one bin
    window = torch.hann_window(length, device=gray.device, dtype=gray.dtype)
    rows = gray[..., :length]
    spectrum = torch.fft.rfft((rows - rows.mean(dim=-1, keepdim=True)) * window).abs().square().mean(dim=1)
    harmonics = torch.arange(1, max(2, (period + 1) // 2), device=gray.device)
    bins = harmonics * repeats
    # The Hann window spreads a line over the bins next to it, so the background is read from two bins away on.
    offsets = torch.tensor([-4, -3, -2, 2, 3, 4], device=gray.device)
    background = spectrum[:, (bins[:, None] + offsets).clamp(1, spectrum.shape[-1] - 1)].mean(dim=-1)
    floor = torch.finfo(torch.float32).tiny
    return (10 * ((spectrum[:, bins] + floor) / (background + floor)).log10()).mean(dim=-1)
