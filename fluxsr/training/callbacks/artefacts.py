"""Logs the artefact meter, the spectrum's energy at the patch period, as a curve."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, Trainer

from fluxsr.losses.spectrum import patch_artefact_energy
from fluxsr.training.validation import rows_counted_here


class ArtefactMeter(Callback):
    """Logs ``val/artefact_db`` (restored images) beside ``val/artefact_db_hr`` (the photos themselves) in validation.

    See :func:`fluxsr.losses.patch_artefact_energy` for the number. Images smaller than eight periods are left out.

    Args:
        period: Period in pixels; ``None``: the backbone's patch, twice the autoencoder's downsampling (16 on FLUX).

    Raises:
        ValueError: If ``period`` is below 2.
    """

    def __init__(self, period: int | None = None) -> None:
        if period is not None and period < 2:
            raise ValueError(f"period must be at least 2 pixels, got {period}")
        self.period = period
        self._sums = torch.zeros(3)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin a new mean."""
        self._sums = torch.zeros(3, device=pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure one validation batch."""
        if outputs is None or "sr_image" not in outputs:
            return
        period = self.period or 2 * pl_module.autoencoder.downsample
        rows = rows_counted_here(trainer, "val", batch_idx, len(outputs["sr_image"]), dataloader_idx)
        sr_image, hr_image = outputs["sr_image"][:rows], outputs["hr_image"][:rows]
        if not rows or min(sr_image.shape[-2:]) < 8 * period:
            return
        measured = [patch_artefact_energy(image, period).sum() for image in (sr_image, hr_image)]
        self._sums += torch.stack([*measured, measured[0].new_tensor(len(sr_image))]).to(self._sums)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the means over all images of all processes that are large enough, if there is one."""
        # A process may have small images alone: the sums meet here, where every process is.
        restored, photos, count = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        if count:
            means = {"val/artefact_db": restored / count, "val/artefact_db_hr": photos / count}
            # All processes have the same means already; without sync_dist Lightning warns that they might not.
            pl_module.log_dict(means, sync_dist=True)
