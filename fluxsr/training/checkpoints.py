"""Writes checkpoints and resumes from them, also under a configuration that has changed: some changes are refused."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fluxsr.atomic import replacing

KEY = "fluxsr"  # what this library keeps in a checkpoint beside Lightning's own


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name and renames it: a killed process leaves the old one or the new one, complete.

    (Lightning's own writes to the system's temporary folder first; where that is another disk, moving is copying.) ``fluxsr
    fit`` uses it by default; elsewhere ``Trainer(plugins=[AtomicCheckpointIO()])``. To write while training goes on:
    ``lightning.pytorch.plugins.io.AsyncCheckpointIO(AtomicCheckpointIO())``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file.

        Raises:
            ValueError: If the path is not local; give Lightning's own plugin there.
            OSError: If it can't be written, for example on a full disk; what was there before stays.
        """
        if "://" in str(path):
            raise ValueError(
                f"{path} is not on a local disk: train with --trainer.plugins lightning.pytorch.plugins.io.TorchCheckpointIO"
            )
        path = Path(path)
        for left in path.parent.glob(f".tmp-*-{path.name}"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        with replacing(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # as torch says whatever becomes of its file
                reason = str(error).splitlines()[0]
                raise OSError(
                    f"can't write the checkpoint {path}: is the disk full? The one before it is whole ({reason})"
                ) from error


class RandomStates(Callback):
    """Saves the global random states in checkpoints and restores them; :class:`fluxsr.training.OneStepSR` adds it."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of now."""
        return random_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states of a checkpoint until training starts."""
        self.loaded = state_dict

    def on_train_batch_start(self, *args: Any) -> None:
        """Go on from a checkpoint's states: here and not earlier, since starting a data loader draws a number too."""
        if self.loaded:
            set_random_states(self.loaded)
            self.loaded = {}


def random_states() -> dict[str, Any]:
    """Return the global random states: Python's, NumPy's, torch's and the current CUDA device's, without pickled objects."""
    state = np.random.get_state(legacy=True)  # noqa: NPY002  the state that users' code may draw from
    assert isinstance(state, tuple)  # as legacy=True promises
    kind, keys, position, has_gauss, cached = state
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Go on from states that :func:`random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu())


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
    """Refuse a checkpoint that does not hold exactly the weights that are trained here, by their public names."""
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
            f"the checkpoint does not fit this model: {name} has shape {tuple(saved[name].shape)} there and "
            f"{tuple(own[name].shape)} here; use the configuration that it was trained with (its lora_rank)"
        )


def check_optimizers(checkpoint: Mapping[str, Any], plan: Any) -> None:
    """Refuse to go on with an optimizer (of ``configure_optimizers``) of another kind, whose state is not in the checkpoint."""
    for name, planned in zip(checkpoint[KEY]["optimizers"], _listed(plan), strict=False):
        own = type(planned["optimizer"]).__name__
        if name != own:
            raise ValueError(
                f"the checkpoint is of a training with {name}, and the configuration says {own}: set its optimizer, or begin "
                "anew from the exported weights (lora_weights)"
            )


def take_over(optimizers: Sequence[torch.optim.Optimizer], schedulers: Iterable[Any], plan: Any) -> None:
    """Apply the configuration's learning rate, schedule and other settings to a resumed run, and say so.

    A checkpoint restores the optimizer's settings along with its state, so a changed learning rate would be ignored. The
    schedule of the configuration is therefore run up to the present step. If that gives the values that were loaded, nothing
    changes, and the training stays equal to an uninterrupted one to the bit. ``plan`` is what ``configure_optimizers`` returns.
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
