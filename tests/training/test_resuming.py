"""Going on from a checkpoint under a configuration that has changed."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.training import MuonAdamW
from fluxsr.training.checkpoints import resumed_from
from tests.training.conftest import loader, run_script, tiny_module, tiny_trainer
from tests.training.resumed_steps import check


def trained(tmp_path, steps=2, checkpoint=None, lora=4, **arguments):
    """Train, saving each step; returns the module, its trainer and the weights."""
    module = tiny_module(lora=lora, losses={}, **arguments)
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = tiny_trainer(tmp_path, max_steps=steps, enable_checkpointing=True, callbacks=[save])
    # Epochs of three steps: a plain loader that goes on within one begins it anew.
    trainer.fit(module, loader(3), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


def adamw(**settings):
    return lambda parameters: torch.optim.AdamW(parameters, **settings)


def test_a_changed_learning_rate_rules(tmp_path, caplog):
    trained(tmp_path, optimizer=adamw(lr=1e-3, weight_decay=0.1))
    _, trainer = trained(tmp_path, 3, str(tmp_path / "step=2.ckpt"), optimizer=adamw(lr=1e-6, weight_decay=0.2))
    (group,) = trainer.optimizers[0].param_groups
    assert group["lr"] == 1e-6 and group["weight_decay"] == 0.2
    (state, *_) = trainer.optimizers[0].state.values()
    assert float(state["step"]) == 3  # the moments went on


def test_a_longer_schedule_extends_a_training(tmp_path):
    def schedule(steps):
        return lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)

    trained(tmp_path, 4, scheduler=schedule(4))
    _, trainer = trained(tmp_path, 8, str(tmp_path / "step=4.ckpt"), scheduler=schedule(8))
    fresh = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    planned = schedule(8)(fresh)
    for _ in range(8):
        planned.step()
    assert trainer.global_step == 8
    assert trainer.optimizers[0].param_groups[0]["lr"] == fresh.param_groups[0]["lr"]
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 8


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=6),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
    ],
    ids=["constant", "cosine", "one cycle", "lambda"],
)
def test_an_unchanged_configuration_goes_on_to_the_bit(tmp_path, scheduler):
    whole, _ = trained(tmp_path / "whole", 6, scheduler=scheduler)
    trained(tmp_path / "parts", 3, scheduler=scheduler)
    parts, _ = trained(tmp_path / "parts", 6, str(tmp_path / "parts" / "step=3.ckpt"), scheduler=scheduler)
    for name, weight in whole.trained.parameters().items():
        assert torch.equal(weight, parts.trained.parameters()[name]), name


@pytest.mark.torch("2.9")
def test_another_rank_or_optimizer_is_refused(tmp_path):
    trained(tmp_path)
    checkpoint = str(tmp_path / "step=2.ckpt")
    with pytest.raises(ValueError, match="lora_rank"):
        trained(tmp_path, 3, checkpoint, lora=8)
    with pytest.raises(ValueError, match="MuonAdamW"):
        trained(tmp_path, 3, checkpoint, optimizer=lambda parameters: MuonAdamW(parameters, lr=1e-3))


def test_a_module_loads_from_a_checkpoint_without_a_trainer(tmp_path):
    from fluxsr.flows import FlowTrajectoryDistillation
    from fluxsr.models import FluxBackbone, PixelAutoencoder
    from fluxsr.training import OneStepSR
    from tests.models.conftest import tiny_transformer

    module, _ = trained(tmp_path)
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    backbone.add_lora(rank=4)
    parts = {"backbone": backbone, "autoencoder": PixelAutoencoder(2), "objective": FlowTrajectoryDistillation()}
    loaded = OneStepSR.load_from_checkpoint(tmp_path / "step=2.ckpt", map_location="cpu", weights_only=True, **parts)
    for name, weight in module.trained.parameters().items():
        assert torch.equal(weight, loaded.trained.parameters()[name])
    assert loaded.objective.lr_time == 0.25


def test_every_hook_knows_what_the_run_goes_on_from(tmp_path):
    check(tmp_path, "auto")
    assert resumed_from() is None


@pytest.mark.torch("2.11")
def test_so_it_does_where_weights_are_sharded(tmp_path):
    """In a process of its own, since a process group is begun."""
    run_script("resumed_steps.py", 1, tmp_path, "fsdp2")
