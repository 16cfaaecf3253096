"""The artefact meter: the spectrum's energy at the patch period, as a curve instead of a hunt by eye."""

from __future__ import annotations

from typing import Any

from lightning import Callback, Trainer

from fluxsr.losses.spectrum import patch_artefact_energy


class ArtefactMeter(Callback):
    """Logs ``val/artefact_db`` (restored images) beside ``val/artefact_db_hr`` (the photos themselves) in validation.

    See :func:`fluxsr.losses.patch_artefact_energy` for the number. Images smaller than eight periods are left out.

    Args:
        period: in pixels; ``None``: the backbone's patch, twice the autoencoder's downsampling (16 on FLUX).

    Raises:
        ValueError: if ``period`` is below 2.
    """

    def __init__(self, period: int | None = None) -> None:
        if period is not None and period < 2:
            raise ValueError(f"period must be at least 2 pixels, got {period}")
        self.period = period

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Measure one validation batch."""
        if outputs is None or "sr_image" not in outputs:
            return
        period = self.period or 2 * pl_module.autoencoder.downsample
        sr_image, hr_image = outputs["sr_image"], outputs["hr_image"]
        if min(sr_image.shape[-2:]) < 8 * period:
            return
        values = {"val/artefact_db": sr_image, "val/artefact_db_hr": hr_image}
        for name, image in values.items():
            value = patch_artefact_energy(image, period).mean()
            pl_module.log(name, value, on_epoch=True, sync_dist=True, batch_size=len(image))
