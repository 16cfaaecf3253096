"""Writing what ``predict`` makes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fluxsr.images import write_image


class ImageWriter(BasePredictionWriter):
    """Writes each upscaled image of ``predict`` as a PNG, at the place below ``output`` that its source has below its folder.

    Of sources whose names differ in their endings alone, each result keeps the ending: ``1.jpg.png`` and ``1.webp.png``.
    Files are written whole or not at all.

    Args:
        output: Folder of the results; it is made if missing.
    """

    def __init__(self, output: str = "outputs/predict") -> None:
        super().__init__(write_interval="batch")
        self.output = Path(output).expanduser()

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, batch_indices: Any, batch: Any, *args: Any
    ) -> None:
        """Write one batch.

        Raises:
            ValueError: If the batch does not say where its images come from.
        """
        if len(batch.paths) != len(prediction):
            raise ValueError("ImageWriter names results by their sources: the batch needs paths, one for each image")
        places = self._places(trainer, [Path(path) for path in batch.paths])
        for image, place in zip(prediction, places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_image(place, image)

    def _places(self, trainer: Trainer, paths: list[Path]) -> list[Path]:
        # What all sources are is known to every process, so that none of them overwrites another's result.
        dataset: Any = getattr(getattr(trainer, "datamodule", None), "predict_set", None)
        everything = [Path(path) for path in getattr(dataset, "paths", paths)]
        root = Path(os.path.commonpath([path.parent for path in everything]))
        stems = Counter(path.with_suffix("") for path in everything)
        names = (path.with_name(f"{path.name if stems[path.with_suffix('')] > 1 else path.stem}.png") for path in paths)
        return [self.output / name.relative_to(root) for name in names]
