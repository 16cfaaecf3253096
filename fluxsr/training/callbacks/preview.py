"""Makes a grid of pictures after each validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.images import write_image
from fluxsr.training.batches import as_batch
from fluxsr.training.callbacks.logged_image import log_image


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
                f"images and sample_steps must be at least 1 and size 8, got {images}, {sample_steps}, {size}"
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
