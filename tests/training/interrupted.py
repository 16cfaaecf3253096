"""Run by test_kill.py, and killed: trains on, from the last checkpoint if there is one, a checkpoint every step."""

import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.data import SRDataModule
from fluxsr.training import AtomicCheckpointIO
from fluxsr.training.callbacks import EMA
from tests.training.conftest import tiny_module, tiny_trainer


def main(photos: str, folder: str, steps: int) -> None:
    """Train up to ``steps`` and write the weights."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    module = tiny_module(losses={})
    average = EMA(0.9)
    save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_last=True, save_top_k=1)
    trainer = tiny_trainer(
        Path(folder),
        max_steps=steps,
        callbacks=[average, save],
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )
    data = SRDataModule(photos=photos, crop=32, batch_size=2, samples_per_image=3, seed=3)
    trainer.fit(module, datamodule=data, ckpt_path="last", weights_only=True)
    state = {name: weight.detach() for name, weight in module.trained.parameters().items()}
    torch.save({"step": trainer.global_step, "weights": state, "average": average.average}, Path(folder) / "end.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
