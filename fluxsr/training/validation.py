"""Measures in validation and test: PSNR, and means over the images of all processes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics import MeanMetric
from torchmetrics.functional.image import peak_signal_noise_ratio

from fluxsr.losses.functional import luma


def psnr_y(image: Tensor, target: Tensor) -> Tensor:
    """Mean over images of the PSNR in dB of the BT.601 luma; both ``(B, 3, H, W)`` in ``[0, 1]``."""
    return peak_signal_noise_ratio(luma(image), luma(target), data_range=(0.0, 1.0), dim=(1, 2, 3))


class Means(nn.ModuleDict):
    """Running means by name and data loader, counted over images and processes by torchmetrics.

    Lightning's own mean over processes with different numbers of images divides by a rounded count.
    """

    def take(self, name: str, loader: int, value: Tensor, rows: int) -> tuple[MeanMetric, str]:
        """Take in a batch's mean; return the metric and its key here. No rows count of a batch that other processes count."""
        key = f"{name}/{loader}"
        if key not in self:
            self[key] = MeanMetric(nan_strategy="ignore").to(value.device)
        mean: Any = self[key]
        if rows:
            mean.update(value.detach().float(), rows)
        return mean, key


def rows_counted_here(trainer: Any, stage: str, batch_idx: int, rows: int, loader: int = 0) -> int:
    """Return how many rows of a batch, from the first on, no process has seen before.

    A distributed sampler repeats the first samples so that every process has equally many; a mean over them would count those
    twice. ``stage`` is ``val`` or ``test``.
    """
    loaders = getattr(trainer, f"{stage}_dataloaders", None)
    loaded = loaders[loader] if isinstance(loaders, list | tuple) else loaders
    if not isinstance(loaded, DataLoader) or not isinstance(loaded.sampler, DistributedSampler):
        return rows
    sampler, first = loaded.sampler, batch_idx * (loaded.batch_size or 1)
    there = len(sampler.dataset)  # type: ignore[arg-type]
    return sum((first + row) * sampler.num_replicas + sampler.rank < there for row in range(rows))
