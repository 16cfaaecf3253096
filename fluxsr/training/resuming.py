"""Resumes from a checkpoint under a configuration that may have changed: some changes are applied, others refused."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

KEY = "fluxsr"  # what this library keeps in a checkpoint beside Lightning's own


def resumed_from() -> Path | None:
    """Return the checkpoint that the trainer at work goes on from, in any of its hooks; ``None``: it begins anew.

    ``trainer.ckpt_path`` says so only once the file was read: after ``setup``, where T_L is needed. Until then the path is
    nothing but an argument on its way down, so it is read there.
    """
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code is Trainer._run.__code__:
            path = frame.f_locals["ckpt_path"]
            return None if path is None else Path(path)
    return None


def lr_time_in(path: Path) -> float | None:
    """Return the T_L that a checkpoint holds; ``None`` if it holds none, or lies elsewhere than on a local disk."""
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    return float(state["objective.lr_time"]) if "objective.lr_time" in state else None


def check_fits(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint holds exactly the weights that are trained here.

    Args:
        own: Weights that this model keeps in checkpoints, by public name.
        saved: Those in the checkpoint.

    Raises:
        ValueError: Naming the first weights that are missing, unknown or of another shape.
    """
    if own.keys() != saved.keys():
        missing, unknown = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
        raise ValueError(
            f"the checkpoint does not fit this model: {len(missing)} trainable weights are missing from it "
            f"({', '.join(missing[:2])}), {len(unknown)} are unknown here ({', '.join(unknown[:2])}); "
            "use the configuration that it was trained with"
        )
    wrong = [name for name in own if own[name].shape != saved[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"the checkpoint does not fit this model: {len(wrong)} weights have other shapes, {name} "
            f"{tuple(saved[name].shape)} there and {tuple(own[name].shape)} here; use the configuration that it was trained "
            "with (for an adapter, its lora_rank)"
        )


def check_optimizers(checkpoint: Mapping[str, Any], plan: Any) -> None:
    """Refuse to go on with an optimizer of another kind, whose state is not in the checkpoint.

    Args:
        checkpoint: The saved checkpoint.
        plan: Return value of ``configure_optimizers``.

    Raises:
        ValueError: Naming both optimizers.
    """
    for name, planned in zip(checkpoint[KEY]["optimizers"], _listed(plan), strict=False):
        own = type(planned["optimizer"]).__name__
        if name != own:
            raise ValueError(
                f"the checkpoint is of a training with {name}, and the configuration says {own}: set the optimizer that it was "
                "trained with, or begin a new training from the exported weights (lora_weights)"
            )


def names_of(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, list[str]]:
    """Return what a checkpoint must say for :func:`check_optimizers`."""
    return {"optimizers": [type(optimizer).__name__ for optimizer in optimizers]}


def take_over(optimizers: Sequence[torch.optim.Optimizer], schedulers: Iterable[Any], plan: Any) -> None:
    """Apply the configuration's learning rate, schedule and other settings to a resumed run, and say so.

    A checkpoint restores the optimizer's settings along with its state, so a changed learning rate would be ignored. The
    schedule of the configuration is therefore run up to the present step. If that gives the values that were loaded, nothing
    changes, and the training stays equal to an uninterrupted one to the bit.

    Args:
        optimizers: The trainer's, restored.
        schedulers: The trainer's, restored.
        plan: Return value of ``configure_optimizers``.
    """
    by_optimizer = {id(scheduler.optimizer): scheduler for scheduler in schedulers}
    for optimizer, one in zip(optimizers, _listed(plan), strict=True):
        fresh, scheduler = one["optimizer"], by_optimizer.get(id(optimizer))
        planned = one.get("lr_scheduler", {}).get("scheduler")
        if isinstance(scheduler, ReduceLROnPlateau):
            continue  # its rates follow from what it has seen
        if scheduler is not None and planned is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that no optimizer steps between
                for _ in range(scheduler.last_epoch):
                    planned.step()
        changes = []
        for group, wanted in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            for key, value in wanted.items():
                if key != "params" and key in group and group[key] != value:
                    changes.append(f"{key} {value} instead of {group[key]}")
                    group[key] = value
        if changes:
            if scheduler is not None and planned is not None:
                scheduler.load_state_dict(planned.state_dict())
            rank_zero_info(f"Going on with the configuration's {', '.join(dict.fromkeys(changes))} in the checkpoint.")


def _listed(plan: Any) -> list[dict[str, Any]]:
    """Return what ``configure_optimizers`` returned as a list with one dictionary for each optimizer."""
    plans = plan if isinstance(plan, list | tuple) else [plan]
    return [one if isinstance(one, dict) else {"optimizer": one} for one in plans]
