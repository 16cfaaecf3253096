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
    sizes = [min(item["size"]) for item in results["images"].values()]
    length = LENGTH if max(sizes) >= LENGTH else 128
    sums: dict[str, Tensor] = {}
    usable = [name for name, size in zip(results["images"], sizes, strict=True) if size >= length]
    systems = [name for name, entry in results["systems"].items() if set(usable) <= set(entry["files"])]
    for name in usable[:IMAGES]:
        pictures = load_pictures(results, name)
        for system in [name for name in (HR, *systems) if name in pictures]:
            sums[system] = sums.get(system, torch.zeros(())) + power_spectrum(pictures[system], length)
    reference = sums.pop(HR, torch.ones(()))
    found = {}
    for system, power in sums.items():
        decibels = 10 * (power / reference).clamp(min=1e-12).log10()
        # The lowest bins hold what is left of the mean.
        found[system] = [(k / length, float(decibels[k])) for k in range(2, length // 2 + 1)]
    return found
