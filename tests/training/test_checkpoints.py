"""What checkpoints hold and how they are written; resuming itself is tested in test_module.py and test_distributed.py."""

import random
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from fluxsr.models import FluxBackbone
from fluxsr.training import AtomicCheckpointIO
from fluxsr.training.callbacks import EMA
from fluxsr.training.checkpoints import random_states, set_random_states
from tests.models.conftest import tiny_transformer
from tests.training.conftest import loader, tiny_module, tiny_trainer


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def test_random_states_go_on_after_a_weights_only_load(tmp_path):
    torch.save(random_states(), tmp_path / "states.pt")
    expected = draws()
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == expected


class Careless:
    """Draws from the global random state, as a user's subclass may."""

    def training_step(self, batch, batch_idx):
        self.drawn.append(draws())
        return super().training_step(batch, batch_idx)


def test_a_subclass_that_draws_from_the_global_state_resumes_exactly(tmp_path):
    def train(steps, **arguments):
        module = tiny_module(losses={})
        module.__class__ = type("CarelessSR", (Careless, type(module)), {})
        module.drawn = []
        trainer = tiny_trainer(tmp_path, max_steps=steps, **arguments.pop("trainer", {}))
        trainer.fit(module, loader(6), weights_only=True, **arguments)
        return module.drawn

    torch.manual_seed(5)
    save = ModelCheckpoint(tmp_path, filename="two", every_n_train_steps=2, save_top_k=1)
    straight = train(2, trainer={"callbacks": [save], "enable_checkpointing": True})
    after = draws()
    (resumed,) = train(3, ckpt_path=tmp_path / "two.ckpt")
    assert resumed == after
    assert len(straight) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_files_are_written_beside_their_place_and_renamed(tmp_path, asynchronous):
    io = AsyncCheckpointIO(AtomicCheckpointIO()) if asynchronous else AtomicCheckpointIO()
    (tmp_path / ".tmp-1-last.ckpt").write_bytes(b"half")  # of a process that was killed
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_last=True, save_top_k=-1)
    trainer = tiny_trainer(tmp_path, max_steps=3, callbacks=[save], enable_checkpointing=True, plugins=[io])
    trainer.fit(tiny_module(losses={}), loader(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "last.ckpt",
        "step=1.ckpt",
        "step=2.ckpt",
        "step=3.ckpt",
    ]
    steps = [torch.load(tmp_path / f"step={n}.ckpt", weights_only=True)["global_step"] for n in (1, 2, 3)]
    assert steps == [1, 2, 3]


def test_a_full_disk_is_named_and_keeps_the_old_checkpoint(tmp_path):
    """Files can't grow beyond 64 KiB for a moment: torch then raises a RuntimeError about a position."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt"):
            AtomicCheckpointIO().save_checkpoint({"step": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_remote_path_is_refused():
    with pytest.raises(ValueError, match=r"s3://bucket/a\.ckpt is not on a local disk.*TorchCheckpointIO"):
        AtomicCheckpointIO().save_checkpoint({}, "s3://bucket/a.ckpt")


def test_a_checkpoint_is_adapters_average_and_optimizer(tmp_path):
    """No frozen weight is in it: its size is that of what is trained, within a tenth."""
    wide = {"attention_head_dim": 64, "num_attention_heads": 4, "axes_dims_rope": [16, 24, 24]}
    backbone = FluxBackbone(tiny_transformer(in_channels=48, **wide))
    base = sum(p.nbytes for p in backbone.parameters())
    module = tiny_module(backbone=backbone, lora=8, losses={})
    save = ModelCheckpoint(tmp_path, filename="one", every_n_train_steps=1)
    trainer = tiny_trainer(tmp_path, max_steps=1, callbacks=[save, EMA(0.9)], enable_checkpointing=True)
    trainer.fit(module, loader(1))
    adapters = sum(p.nbytes for p in module.trained.parameters().values())
    size = (tmp_path / "one.ckpt").stat().st_size
    assert size <= 1.1 * (adapters + 2 * adapters + adapters)  # adapters, two moments of Adam, EMA
    assert size < base / 2
