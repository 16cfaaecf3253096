"""Handles Ctrl-C and SIGTERM during training: it finishes the step, writes a checkpoint, and prints how to resume."""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint


class Terminated(KeyboardInterrupt):
    """A training was ended by SIGTERM: Lightning leaves as after Ctrl-C, and the exit code is 143."""


class SaveOnInterrupt(Callback):
    """Ends a run at the first SIGINT or SIGTERM after its step, with ``last.ckpt`` beside the checkpoints of the run.

    A second signal stops at once, as Lightning does. Where SLURM requeues jobs, SIGTERM is left to Lightning. This callback
    comes after the others: the moving average takes in a step before it is saved.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._asked = 0  # the signal that asked for the end
        self._first_step = 0
        self._saved: Path | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._first_step = self._step = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return
        cluster: Any = getattr(trainer.strategy, "cluster_environment", None)
        requeues = isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue
        for number in (signal.SIGINT, *(() if requeues else (signal.SIGTERM,))):
            self._before[number] = signal.signal(number, lambda got, _: self._ask(trainer, got))

    def _ask(self, trainer: Trainer, number: int) -> None:
        if self._asked or trainer.global_step == self._first_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            raise _stopped_by(number)
        self._asked = number
        if trainer.is_global_zero:
            # Not print: the signal may have hit amid a line of the progress bar, whose lock and buffer are not ours.
            again = b"; Ctrl-C again stops at once" if number == signal.SIGINT else b""
            os.write(2, b"\nfluxsr: finishing this step, then writing a checkpoint" + again + b"\n")

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
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(bool(self._asked), all=False):
            self._asked = self._asked or signal.SIGTERM
        if self._asked:
            path = _place(trainer)
            trainer.save_checkpoint(path, weights_only=False)  # False: with the optimizer
            self._saved = path
            raise _stopped_by(self._asked)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _stopped_by(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


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
