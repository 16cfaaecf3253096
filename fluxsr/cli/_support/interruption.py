"""Ctrl-C in a training: the step at hand is finished, a checkpoint written, and how to go on is said."""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class SaveOnInterrupt(Callback):
    """Ends a training cleanly at the first SIGINT, with ``last.ckpt`` beside the checkpoints of the run.

    Lightning's own way is to stop wherever the signal hits, half-way through an optimizer step maybe, and to write nothing;
    so does a second SIGINT here. This callback comes after the others: the moving average takes in a step before it is saved.

    Args:
        command: what the user gave, without ``--ckpt_path``: it is repeated in the message.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._asked = False
        self._first_step = 0
        self._saved: Path | None = None
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Listen."""
        self._first_step = self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, lambda *_: self._ask(trainer))

    def _ask(self, trainer: Trainer) -> None:
        if self._asked or trainer.global_step == self._first_step:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self._asked = True
        if trainer.is_global_zero:
            # Not print: the signal may have hit amid a line of the progress bar, whose lock and buffer are not ours.
            os.write(2, b"\nfluxsr: finishing this step, then writing a checkpoint; Ctrl-C again stops at once\n")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Stop where an optimizer step is done: not between accumulated batches."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop here too: the weights are the trained ones again, not their average."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        # The signal reaches the processes of one run at different steps: they stop together.
        if trainer.world_size > 1:
            self._asked = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        if self._asked:
            path = _place(trainer)
            trainer.save_checkpoint(path, weights_only=False)  # False: with the optimizer
            self._saved = path
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Say where the checkpoint is and how to go on."""
        if not isinstance(exception, KeyboardInterrupt) or not trainer.is_global_zero:
            return
        if self._saved is not None:
            told = (
                f"stopped after step {trainer.global_step}: {self._saved}; go on with: {self.command} --ckpt_path last"
            )
        else:
            told = "stopped at once; no new checkpoint was written"
        print(f"\nfluxsr: {told}", file=sys.stderr, flush=True)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Leave the signal as it was."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest ``last.ckpt`` below a folder; ``None`` if there is none.

    Each run of Lightning has a folder of its own (``lightning_logs/version_1``), and ``ckpt_path="last"`` looks into the new,
    empty one alone.
    """
    found = [*Path(folder).rglob("last.ckpt"), *Path(folder).rglob("last-v*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _place(trainer: Trainer) -> Path:
    """Return the name of the checkpoint: ``last.ckpt`` of this run, or of the run that it goes on with, never another's."""
    keeper = next(
        (one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint) and one.dirpath), None
    )
    if keeper is not None and keeper.dirpath:
        folder = Path(keeper.dirpath)
    else:
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    own = {str(keeper.last_model_path) if keeper else "", str(trainer.ckpt_path)}
    names = (folder / f"last{f'-v{number}' if number else ''}.ckpt" for number in count())
    return next(path for path in names if str(path) in own or not path.exists())
