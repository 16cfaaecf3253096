"""NaN stops a training before it reaches a file."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.training import ImageTerm
from fluxsr.training.callbacks import ExportBackbone
from fluxsr.training.finite import FiniteGuard, NotFinite
from tests.training.conftest import loader, tiny_module, tiny_trainer


class Breaks(torch.nn.Module):
    """A loss that is NaN from its third call on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, sr_image, hr_image):
        self.calls += 1
        return (sr_image - hr_image).square().mean() * (math.nan if self.calls > 2 else 1.0)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_files(tmp_path):
    module = tiny_module(losses={"breaks": ImageTerm(Breaks())})
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    export = ExportBackbone(tmp_path / "backbone.safetensors")
    with pytest.raises(NotFinite) as caught:
        tiny_trainer(tmp_path, max_steps=6, enable_checkpointing=True, callbacks=[save, export]).fit(module, loader(6))
    assert caught.value.step == 2 and math.isnan(caught.value.terms["breaks"])
    assert math.isfinite(caught.value.terms["flow"])
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=1.ckpt", "step=2.ckpt", "last.ckpt"}
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    assert all(value.isfinite().all() for value in last["state_dict"].values() if isinstance(value, torch.Tensor))
    assert not (tmp_path / "backbone.safetensors").exists()


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    module = tiny_module()
    export = ExportBackbone(tmp_path / "backbone.safetensors")

    class Spoil(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(math.inf)

    module.make_optimizer = lambda parameters: Spoil(parameters, lr=0.0)
    with pytest.raises(NotFinite) as caught:
        tiny_trainer(tmp_path, max_steps=1, callbacks=[export]).fit(module, loader(1))
    assert caught.value.terms == {} and not list(tmp_path.glob("*.safetensors"))


class OneProcess:
    @staticmethod
    def reduce(tensor, reduce_op):
        return tensor


class TheOtherOneFailed(OneProcess):
    @staticmethod
    def reduce(tensor, reduce_op):
        return tensor + torch.tensor([1.0] + [0.0] * (len(tensor) - 1))


def test_every_process_stops_where_one_fails():
    guard = FiniteGuard()
    with pytest.raises(NotFinite) as caught:
        guard.watch(5, {"flow": torch.tensor(1.0)}, TheOtherOneFailed)
    assert caught.value.step == 5 and "another process" in caught.value.terms
    FiniteGuard().watch(5, {"flow": torch.tensor(1.0)}, OneProcess)
