"""Run by test_resuming.py: trains, goes on, and begins anew, and asks in many hooks what the run goes on from."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from lightning import Callback

from fluxsr.processes import leave_group
from fluxsr.training.callbacks import ExportBackbone
from fluxsr.training.checkpoints import resumed_from
from tests.training.conftest import loader, tiny_module, tiny_trainer

HOOKS = ("setup", "on_fit_start", "on_train_start", "on_validation_end", "on_fit_end")


class Asks(Callback):
    """Asks in many hooks."""

    def __init__(self):
        self.heard = {}
        for hook in HOOKS:
            setattr(self, hook, lambda *args, hook=hook, **kwargs: self.heard.update({hook: resumed_from()}))


def check(folder: Path, strategy: str) -> None:
    """Every hook knows, so a run that goes on replaces its own export, and another one keeps it."""

    def run(steps, checkpoint=None):
        asks = Asks()
        trainer = tiny_trainer(
            folder, max_steps=steps, strategy=strategy, callbacks=[asks, ExportBackbone()], val_check_interval=1
        )
        trainer.fit(tiny_module(losses={}), loader(2), loader(1), ckpt_path=checkpoint, weights_only=True)
        return trainer, asks.heard

    trainer, heard = run(1)
    assert heard == dict.fromkeys(HOOKS)
    checkpoint = folder / "one.ckpt"
    trainer.save_checkpoint(checkpoint)
    _, heard = run(2, str(checkpoint))
    assert heard == dict.fromkeys(HOOKS, checkpoint)
    assert not list(folder.glob("earlier-*"))
    run(1)
    assert len(list(folder.glob("earlier-*"))) == 1


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    check(Path(sys.argv[1]), sys.argv[2])
    leave_group()
