"""Computes the curves of the report: those of a training, from its logs, and the spectra of systems."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from fluxsr.evaluation.document import Results
from fluxsr.evaluation.report.pictures import HR, load_pictures

Curves = dict[str, list[tuple[float, float]]]
MOST = 12
LENGTH = 256  # of what a spectrum is made of, in pixels
IMAGES = 20  # the mean of more looks the same


def read_curves(folder: str | Path) -> Curves:
    """Return every scalar of the logs at any depth below a folder, as (step, value), the losses first, at most 12.

    Raises:
        ValueError: If there is no such folder, no log in it, or events and no TensorBoard to read them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder with logs")
    curves: Curves = {}
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                step = float(row.pop("step", "") or number)
                for name, value in row.items():
                    if value:
                        curves.setdefault(name, []).append((step, float(value)))
    for path in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError as error:
            raise ValueError(
                f"the events in {path} are read by tensorboard: pip install 'fluxsr[tensorboard]'"
            ) from error
        events = EventAccumulator(str(path), size_guidance={"scalars": 2000})
        events.Reload()
        for name in events.Tags()["scalars"]:
            curves.setdefault(name, []).extend((event.step, event.value) for event in events.Scalars(name))
    curves.pop("epoch", None)
    longer = any(len(points) > 1 for points in curves.values())  # a training of a single step has but points to show
    curves = {name: sorted(points) for name, points in curves.items() if len(points) > 1 or not longer}
    if not curves:
        raise ValueError(f"no metrics.csv and no TensorBoard events with curves in {folder}")
    order = sorted(curves, key=lambda name: (not name.startswith("train/loss"), not name.startswith("val/"), name))
    return {name: curves[name] for name in order[:MOST]}


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a curve as means over stretches, at most 100: the noise of single steps hides the course."""
    length = -(-len(points) // 100)
    stretches = (points[start : start + length] for start in range(0, len(points), length))
    return [(stretch[-1][0], sum(value for _, value in stretch) / len(stretch)) for stretch in stretches]


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


def relative_spectra(results: Results) -> Curves:
    """Return, for each system, (frequency in cycles per pixel, dB over HR, or of the power itself without HR).

    A patch-wise model's grid is a peak at its period. Images smaller than the stretches, or whose files are gone, are left out.
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
