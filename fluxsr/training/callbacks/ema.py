"""Keeps an exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from fluxsr.models.weight_files import like, public_name, public_parameters, whole
from fluxsr.training.trained import Trained


class EMA(Callback):
    """Keeps ``average = d * average + (1 - d) * weight`` of the trainable parameters, after every optimizer step.

    After step n, ``d = min(decay, (1 + n) / (10 + n))`` (TensorFlow's rule). So the average of a short run is of trained
    weights, not of those that it started from. Without it, 250 steps at 0.998 would export 61 % of the untrained weights.

    Only what is trained is averaged, so on a frozen base the memory is that of the adapters. Validation, test, prediction and
    :class:`ExportBackbone` use the average; it is saved with checkpoints and restored with them.

    Args:
        decay: Decay of the average, in ``[0, 1)``; 0.999 averages about the last thousand steps. It is
            reached after about 9 / (1 - decay) steps.

    Raises:
        ValueError: If ``decay`` lies outside ``[0, 1)``.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}; 0.999 is usual")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._seen = 0
        self._kept: dict[str, Tensor] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the current weights, unless a checkpoint brought an average."""
        self._start(pl_module)
        self._seen = trainer.global_step

    # Once more, since a checkpoint's step is known only now.
    on_train_start = on_fit_start

    def _start(self, pl_module: LightningModule) -> None:
        for name, weight in Trained(pl_module).parameters().items():
            if name not in self.average:
                # In float32: of a bfloat16 weight, steps of 0.1 % would be rounded away and the average would never move.
                self.average[name] = weight.detach().float().clone()
        # A loaded average is whole: each process keeps its part.
        weights = public_parameters(pl_module)
        self.average = {name: like(tensor, weights[name]) for name, tensor in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Take in the new weights, once per optimizer step (not per accumulated batch); of frozen ones the average stays."""
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        self._start(pl_module)
        current = Trained(pl_module).parameters()
        decay = min(self.decay, (1 + self._seen) / (10 + self._seen))
        for sharded in (False, True):  # torch takes either kind at a time
            names = [name for name in current if hasattr(self.average[name], "full_tensor") == sharded]
            if names:
                weights = [current[name].detach().float() for name in names]
                torch._foreach_lerp_([self.average[name] for name in names], weights, 1 - decay)

    @contextmanager
    def averaged(self, pl_module: LightningModule) -> Iterator[None]:
        """Run the body with the average in place of the weights."""
        if self._kept is not None:  # a validation is running on the average already
            yield
            return
        self._swap_in(pl_module)
        try:
            yield
        finally:
            self._swap_out(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on training the weights."""
        self._swap_out(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the weights back, so that a checkpoint written on the way out holds them."""
        self._swap_out(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the weights, also during a validation, when the average stands in their place."""
        keys = {public_name(key): key for key in checkpoint["state_dict"]}
        for name, tensor in (self._kept or {}).items():
            checkpoint["state_dict"][keys[name]] = whole(tensor).detach().cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return the average in one piece, for the checkpoint."""
        return {"average": {name: whole(tensor) for name, tensor in self.average.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self.average = {name: tensor.float() for name, tensor in state_dict["average"].items()}

    @torch.no_grad()
    def _swap_in(self, pl_module: LightningModule) -> None:
        if not self.average or self._kept is not None:
            return
        self._start(pl_module)
        weights = public_parameters(pl_module)
        self._kept = {name: weights[name].detach().clone() for name in self.average}
        for name, tensor in self.average.items():
            weights[name].copy_(tensor)

    @torch.no_grad()
    def _swap_out(self, pl_module: LightningModule) -> None:
        if self._kept is None:
            return
        weights = public_parameters(pl_module)
        for name, tensor in self._kept.items():
            weights[name].copy_(tensor)
        self._kept = None
