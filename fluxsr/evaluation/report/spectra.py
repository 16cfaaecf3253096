"""Computes mean spectra of systems over those of the photos; a patch-wise model's grid is a peak at its period."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.evaluation.document import Results
from fluxsr.evaluation.report.pictures import HR, load_pictures

LENGTH = 256
IMAGES = 20  # the mean of more looks the same


def power_spectrum(picture: Tensor, length: int = LENGTH) -> Tensor:
    """Return the mean power of rows and columns at the frequencies ``k / length``, ``(3, H, W) -> (length / 2 + 1,)``.

    Welch's method: overlapping stretches of ``length`` pixels under a Hann window, their mean taken off.
    """
    gray = picture.double().mean(dim=0)
    window = torch.hann_window(length, dtype=gray.dtype)
    powers = []
    for rows in (gray, gray.T):
        stretches = rows.unfold(1, length, length // 2)
        spectrum = torch.fft.rfft((stretches - stretches.mean(dim=-1, keepdim=True)) * window)
        powers.append(spectrum.abs().square().mean(dim=(0, 1)))
    return torch.stack(powers).mean(dim=0)


def relative_spectra(results: Results) -> dict[str, list[tuple[float, float]]]:
    """Return, for each system, (frequency in cycles per pixel, dB over HR); over one pixel's share without HR.

    Images smaller than the stretches, and those whose files are gone, are left out.
    """
    sizes = {name: min(item["size"]) for name, item in results["images"].items()}
    length = LENGTH if max(sizes.values()) >= LENGTH else 128
    sums: dict[str, Tensor] = {}
    usable = [name for name, size in sizes.items() if size >= length]
    whole = {HR, *(name for name, entry in results["systems"].items() if set(usable) <= set(entry["files"]))}
    for name in usable[:IMAGES]:
        for system, picture in load_pictures(results, name).items():
            if system in whole:
                sums[system] = sums.get(system, torch.zeros(())) + power_spectrum(picture, length)
    reference = sums.pop(HR, torch.ones(()))
    decibels = {system: (10 * (power / reference).clamp(min=1e-12).log10()).tolist() for system, power in sums.items()}
    # The lowest bins hold what is left of the mean.
    return {system: [(k / length, values[k]) for k in range(2, length // 2 + 1)] for system, values in decibels.items()}
