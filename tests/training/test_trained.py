"""What is trained now: one answer for optimizers, averages and checkpoints, under names without wrappers."""

from __future__ import annotations

import pytest
import torch
from lightning import Callback
from torch import nn

from fluxsr.models.weight_files import public_name
from fluxsr.training.callbacks import EMA
from fluxsr.training.trained import Trained
from tests.training.conftest import loader, tiny_module, tiny_trainer


class Net(nn.Module):
    """A velocity model in full, with running statistics beside its weights, a frozen part, and buffers of either kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 1)
        self.inner = nn.Sequential(nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12, affine=False))
        self.frozen = nn.BatchNorm2d(12).requires_grad_(False)
        self.register_buffer("table", torch.ones(3), persistent=False)

    def forward(self, xt, t):
        return self.conv(xt) + self.inner(xt)


WEIGHTS = {"backbone.conv.weight", "backbone.conv.bias", "backbone.inner.0.weight", "backbone.inner.0.bias"}
STATISTICS = {f"backbone.inner.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def made(compiled=False):
    torch.manual_seed(0)
    net = Net()
    return tiny_module(lora=None, losses={}, backbone=torch.compile(net, backend="eager") if compiled else net)


def trained(folder, module, steps=2, checkpoint=None, callbacks=()):
    trainer = tiny_trainer(folder, max_steps=steps, callbacks=[EMA(0.5), *callbacks])
    trainer.fit(module, loader(3), ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return torch.load(folder / f"{steps}.ckpt", weights_only=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_one_answer_for_all_who_ask(tmp_path, compiled):
    module = made(compiled)
    saved = trained(tmp_path, module)
    (ema,) = (state for name, state in saved["callbacks"].items() if name.startswith("EMA"))
    assert set(module.trained.parameters()) == set(ema["average"]) == WEIGHTS
    assert set(module.trained.state()) == set(saved["state_dict"]) - {"objective.lr_time"} == WEIGHTS | STATISTICS
    assert len(saved["optimizer_states"][0]["state"]) == len(WEIGHTS)
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    kept = own - module.trained.frozen()
    assert {public_name(name) for name in kept} == WEIGHTS | STATISTICS and compiled == any(
        "_orig_mod" in n for n in kept
    )
    assert float(saved["state_dict"]["backbone.inner.1.num_batches_tracked"]) == 4  # two calls a step


@pytest.mark.parametrize("first", [False, True])
def test_a_compiled_model_and_a_plain_one_go_on_from_each_other(tmp_path, first):
    saved = trained(tmp_path, made(first))
    module = made(not first)
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()

    class Compare(Callback):
        def on_train_start(self, trainer, module):
            for name, value in module.trained.state().items():
                assert torch.equal(value, saved["state_dict"][name]), name

    trained(tmp_path, module, 3, str(tmp_path / "2.ckpt"), [Compare()])


def test_what_is_frozen_later_stays_in_checkpoints_and_its_average_stands_still(tmp_path):
    class Freeze(Callback):
        def on_train_batch_start(self, trainer, module, *args):
            if trainer.global_step == 1:
                module.backbone.conv.requires_grad_(False)
                self.average = {name: value.clone() for name, value in self.ema.average.items()}

    module, freeze = made(), Freeze()
    freeze.ema = EMA(0.5)
    trainer = tiny_trainer(tmp_path, max_steps=3, callbacks=[freeze, freeze.ema])
    trainer.fit(module, loader(3))
    assert set(module.trained.parameters()) == {name for name in WEIGHTS if "inner" in name}
    assert set(module.state_dict()) >= WEIGHTS | STATISTICS
    moved = {name for name, value in freeze.ema.average.items() if not torch.equal(value, freeze.average[name])}
    assert moved == {name for name in WEIGHTS if "inner" in name}


def test_buffers_follow_the_smallest_part_around_them():
    net = nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.ModuleDict({"c": nn.BatchNorm1d(2, affine=False)})})
    assert not any(name.startswith("b.") for name in Trained(net).state())  # nothing is trained around it
    net["b"]["d"] = nn.Linear(2, 2)
    assert "b.c.running_mean" in Trained(net).state()
    net["a"].requires_grad_(False)
    assert not any(name.startswith("a.") for name in Trained(net).state())
