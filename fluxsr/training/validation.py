"""Measures in validation and test, as means over the images of all processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchmetrics import MeanMetric

from fluxsr.training.batches import as_batch
from fluxsr.training.psnr import psnr_y
from fluxsr.training.randomness import rows_counted_here
from fluxsr.training.terms import FLOW

if TYPE_CHECKING:
    from fluxsr.training.module import OneStepSR


class Means(nn.Module):
    """Running means by stage and name, counted over images and processes by torchmetrics.

    Lightning's own mean over processes with different numbers of images divides by a rounded count.

    Args:
        names: Names of what is measured in both stages, beside PSNR-Y, bicubic's and a teacher's loss.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        measured = ("psnr_y", "psnr_y_bicubic", FLOW, *names)
        self.by_name = nn.ModuleDict(
            {f"{stage}/{name}": MeanMetric(nan_strategy="ignore") for stage in ("val", "test") for name in measured}
        )

    def log(self, module: OneStepSR, stage: str, values: dict[str, Tensor], rows: int) -> None:
        """Take in a batch's means and log them; of a batch that other processes count, no rows do here."""
        for name, value in values.items():
            mean: Any = self.by_name[f"{stage}/{name}"]
            if rows:
                mean.update(value.detach().float(), rows)
            module.log(f"{stage}/{name}", mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=max(rows, 1))


def evaluate(module: OneStepSR, batch: Any, batch_idx: int, stage: str) -> dict[str, Tensor]:
    """Measure one batch; return the images ``sr_image``, ``hr_image`` and ``bicubic``, nothing for a teacher.

    Args:
        module: The module.
        batch: Batch with ``lr_image`` and ``hr_image``.
        batch_idx: Its number on this process.
        stage: ``val`` or ``test``.
    """
    batch = as_batch(batch)
    rows = rows_counted_here(module.trainer, stage, batch_idx, len(batch.hr_image))
    if module.objective.starts_from_noise:
        output, _ = module.flow(module.encode(batch, batch_idx), batch_idx)
        module.means.log(module, stage, {FLOW: output.loss}, rows)
        return {}
    bicubic = module.enlarge(batch.lr_image, batch.hr_image.shape[-2:])
    sr_image = module.restore_image(bicubic)
    sr, hr, enlarged = (image[: max(rows, 1)] for image in (sr_image, batch.hr_image, bicubic))
    values = {"psnr_y": psnr_y(sr, hr), "psnr_y_bicubic": psnr_y(enlarged, hr)}
    values |= {name: loss(sr, hr) for name, loss in module.val_losses.items()}
    module.means.log(module, stage, values, rows)
    return {"sr_image": sr_image, "hr_image": batch.hr_image, "bicubic": bicubic}
