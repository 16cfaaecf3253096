"""Writes and reads checkpoints: trained weights, their optimizer and average, random states."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fluxsr.atomic import replacing


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
