"""Setting T_L from the user's own data before the first step."""

from __future__ import annotations

from itertools import islice
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from fluxsr.flows import FlowTrajectoryDistillation, LatentPair, calibrate_lr_time
from fluxsr.training.batches import as_batch


class CalibrateLRTime(Callback):
    """Sets ``lr_time`` of :class:`fluxsr.flows.FlowTrajectoryDistillation` from some training batches, and prints it.

    The value is kept in checkpoints, so a resumed training does not calibrate again. Leave it out when starting from an
    adapter that was trained with another ``lr_time``.

    Args:
        batches: how many training batches to measure.

    Raises:
        ValueError: if ``batches`` is below 1.
    """

    def __init__(self, batches: int = 8) -> None:
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure and set.

        Raises:
            ValueError: if the objective has no ``lr_time``.
        """
        objective = pl_module.objective
        if not isinstance(objective, FlowTrajectoryDistillation):
            raise ValueError(
                f"CalibrateLRTime sets lr_time, which {type(objective).__name__} doesn't have; leave it out"
            )
        if trainer.ckpt_path is not None:
            return
        loader: Any = trainer.train_dataloader  # from a data module or not
        estimate = calibrate_lr_time(
            self._pair(pl_module, batch, i) for i, batch in enumerate(islice(loader, self.batches))
        )
        # Every process saw its own rows; one value must rule.
        objective.lr_time = trainer.strategy.broadcast(estimate.lr_time)
        rank_zero_info(f"calibrated {estimate}")

    @staticmethod
    def _pair(pl_module: Any, batch: Any, step: int) -> LatentPair:
        return pl_module.encode(as_batch(pl_module.transfer_batch_to_device(batch, pl_module.device, 0)), step)
