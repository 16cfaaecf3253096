"""Writing what ``predict`` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fluxsr.images import write_image


class ImageWriter(BasePredictionWriter):
    """Writes each upscaled image of ``predict`` as a PNG named as its source, whole or not at all.

    Args:
        output: folder; made if missing.
    """

    def __init__(self, output: str = "outputs/predict") -> None:
        super().__init__(write_interval="batch")
        self.output = Path(output)

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, batch_indices: Any, batch: Any, *args: Any
    ) -> None:
        """Write one batch."""
        self.output.mkdir(parents=True, exist_ok=True)
        for image, path in zip(prediction, batch.paths, strict=True):
            write_image(self.output / f"{Path(path).stem}.png", image)
