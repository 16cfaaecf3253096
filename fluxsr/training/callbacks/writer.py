"""Writes the pictures that ``predict`` makes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fluxsr.images import write_image
from fluxsr.training.batches import as_batch


class ImageWriter(BasePredictionWriter):
    """Writes each upscaled image of ``predict`` as a PNG, at the place below ``output`` that its source has below its folder.

    If the names of sources differ only in their endings, each result keeps the ending: ``1.jpg.png`` and ``1.webp.png``.
    Files are written whole or not at all.

    Args:
        output: Folder of the results; it is made if missing.
    """

    def __init__(self, output: str = "outputs/predict") -> None:
        super().__init__(write_interval="batch")
        self.output = Path(output).expanduser()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note all sources, which every process knows, so that none of them overwrites another's result."""
        dataset: Any = getattr(getattr(trainer, "datamodule", None), "predict_set", None)
        self._note([Path(path) for path in getattr(dataset, "paths", ())])

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, batch_indices: Any, batch: Any, *args: Any
    ) -> None:
        """Write one batch.

        Raises:
            ValueError: If the batch does not say where its images come from, or a result would overwrite another one.
        """
        paths = [Path(path) for path in getattr(as_batch(batch), "paths", ())]
        if len(paths) != len(prediction):
            raise ValueError("ImageWriter names results by their sources: the batch needs paths, one for each image")
        if not self._sources:  # data of another kind, whose first batch says where they lie
            self._note(paths)
        for image, source in zip(prediction, paths, strict=True):
            place = self._place(source)
            if self._made.setdefault(place, source) != source:
                raise ValueError(f"{self._made[place]} and {source} would both become {place}: predict them apart")
            place.parent.mkdir(parents=True, exist_ok=True)
            write_image(place, image)

    def _note(self, sources: list[Path]) -> None:
        self._made: dict[Path, Path] = {}
        self._sources = sources
        self._root = Path(os.path.commonpath([path.parent for path in sources])) if sources else Path()
        self._stems = Counter(path.with_suffix("") for path in sources)

    def _place(self, source: Path) -> Path:
        name = f"{source.name if self._stems[source.with_suffix('')] > 1 else source.stem}.png"
        inside = source.is_relative_to(self._root)
        return self.output / (source.with_name(name).relative_to(self._root) if inside else name)
