"""Shows and writes pictures: a grid after each validation, and what ``predict`` makes."""

from __future__ import annotations

import os
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.images import write_image
from fluxsr.training.batches import as_batch


class PreviewGrid(Callback):
    """Writes rows of LR, bicubic, SR and HR after each validation, to disk and to every logger that
    takes pictures (TensorBoard, W&B, MLflow, Comet).

    The pictures are those of the validation: without validation (no ``data.val_photos``) it says so once.
    A teacher's grid holds samples from fixed noise instead. Files are ``previews/step-00000500.png`` below the trainer's
    ``default_root_dir``.

    Args:
        images: Number of rows.
        size: The middle square of so many pixels is shown of larger images.
        sample_steps: Euler steps of a teacher's samples.

    Raises:
        ValueError: If ``images`` or ``sample_steps`` is below 1, or ``size`` below 8.
    """

    def __init__(self, images: int = 4, size: int = 256, sample_steps: int = 20) -> None:
        if images < 1 or size < 8 or sample_steps < 1:
            raise ValueError(
                f"images and sample_steps must be at least 1, size 8, got {images}, {sample_steps}, {size}"
            )
        self.images = images
        self.size = size
        self.sample_steps = sample_steps
        self._rows: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Say it where there will be no pictures."""
        if not sum(trainer.num_val_batches):
            rank_zero_info("No previews: there are no validation images. Give --data.val_photos, a folder of photos.")

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start a new grid."""
        self._rows = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Collect rows until there are enough."""
        if not trainer.is_global_zero or len(self._rows) >= self.images:
            return  # where the weights are sharded, the others make this process's passes with it (OneStepSR.velocity)
        batch = as_batch(batch)
        if outputs is not None and "sr_image" in outputs:
            lr_image = interpolate(batch.lr_image, size=batch.hr_image.shape[-2:], mode="nearest")
            columns = (lr_image, outputs["bicubic"], outputs["sr_image"], outputs["hr_image"])
            for row in zip(*columns, strict=True):
                self._rows.append(torch.cat([self._middle(image) for image in row], dim=-1))
        else:
            self._rows += self._samples(pl_module, batch)
        del self._rows[self.images :]

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the grid."""
        if not self._rows or trainer.sanity_checking or getattr(trainer, "fast_dev_run", False):
            return
        width = max(row.shape[-1] for row in self._rows)
        padded = [torch.nn.functional.pad(row, (0, width - row.shape[-1]), value=1.0) for row in self._rows]
        grid = torch.cat(padded, dim=-2).float().cpu().clamp(0, 1)
        path = Path(trainer.default_root_dir) / "previews" / f"step-{trainer.global_step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, grid)
        for logger in trainer.loggers:
            log_image(logger, "preview", grid, trainer.global_step)

    def _samples(self, pl_module: Any, batch: Any) -> list[Tensor]:
        like = pl_module.encode(batch).hr[:1]
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.images * 4, *like.shape[1:], generator=generator).to(like)
        image = pl_module.decode(pl_module.objective.restore(pl_module.velocity(), noise, self.sample_steps))
        return [torch.cat([self._middle(one) for one in row], dim=-1) for row in image.split(4)]

    def _middle(self, image: Tensor) -> Tensor:
        top, left = (max(0, (side - self.size) // 2) for side in image.shape[-2:])
        return image[:, top : top + self.size, left : left + self.size]


def log_image(logger: Any, name: str, image: Tensor, step: int) -> bool:
    """Hand a picture to a logger of Lightning; return whether it takes pictures.

    Three kinds do. W&B's logger has ``log_image(key, images, step)``. TensorBoard's ``experiment`` has
    ``add_image(name, tensor, step)``. MLflow's and Comet's ``experiment`` have ``log_image``: MLflow's takes the ``run_id`` of
    the logger first, Comet's the picture and its ``name``. The picture is ``(3, H, W)`` in ``[0, 1]``, on the CPU.
    """
    own = getattr(logger, "log_image", None)
    if callable(own):
        own(key=name, images=[_pillow(image)], step=step)
        return True
    experiment = getattr(logger, "experiment", None)
    add = getattr(experiment, "add_image", None)
    if callable(add):
        add(name, image, step)
        return True
    log = getattr(experiment, "log_image", None)
    if not callable(log):
        return False
    if "run_id" in signature(log).parameters:
        log(logger.run_id, _pillow(image), key=name, step=step)
    else:
        log(_pillow(image), name=name, step=step)
    return True


def _pillow(image: Tensor) -> Any:
    """Return an image of Pillow's, which every service takes."""
    from PIL import Image

    return Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy())


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
