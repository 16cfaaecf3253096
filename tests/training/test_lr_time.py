"""T_L is measured once, before anything is built on it, and goes where the weights go."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fluxsr.data import SRDataModule
from fluxsr.flows import FlowTrajectoryDistillation, GridTimes, calibrate_lr_time
from fluxsr.losses import MSELoss
from fluxsr.models import FluxBackbone, LatentAutoencoder
from fluxsr.training import AtomicCheckpointIO, ImageTerm
from fluxsr.training.lr_time import FACTOR, IMAGES, measure_lr_time, samples_of
from tests.models.conftest import tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


def auto(rule="norm", grid=None, **arguments):
    objective = FlowTrajectoryDistillation("auto", grid, rule)
    return tiny_module(losses={"mse": ImageTerm(MSELoss())}, objective=objective, **arguments)


def many(batches=20, **arguments) -> DataLoader:
    return loader(batches, **arguments)


@pytest.mark.parametrize("rule", ["norm", "snr"])
def test_it_is_measured_on_the_first_batches_and_the_training_is_that_of_the_number(rule, caplog, monkeypatch):
    # Other tests, and the demo, silence this logger.
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        torch.manual_seed(5)
        module = auto(rule)
        tiny_trainer(max_steps=2).fit(module, many())
    expected = calibrate_lr_time([module.encode(tiny_batch(seed=number)) for number in range(IMAGES // 2)], rule)
    assert module.objective.lr_time == pytest.approx(expected.lr_time, rel=1e-6 if rule == "snr" else 0.02)
    assert any("10 %" in record.message and rule in record.message for record in caplog.records)

    torch.manual_seed(5)
    given = tiny_module(
        losses={"mse": ImageTerm(MSELoss())}, objective=FlowTrajectoryDistillation(module.objective.lr_time)
    )
    tiny_trainer(max_steps=2).fit(given, many())
    for name, weight in module.trained.parameters().items():
        assert torch.equal(weight, given.trained.parameters()[name]), name


class Restless(Dataset):
    """Photos that draw from every global state, as users' augmentations do."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        hr_image = torch.rand(3, 16, 16) * random.random() * np.random.rand()  # noqa: NPY002
        return {"hr_image": hr_image, "lr_image": hr_image[:, ::4, ::4]}


def test_no_random_stream_is_eaten(photos):
    """Neither a global one nor that of the loader: the training draws what it would have drawn."""
    drawn = []
    for lr_time in ("auto", 0.2):
        module = tiny_module(losses={}, objective=FlowTrajectoryDistillation(lr_time), check_lr_time=False)
        torch.manual_seed(7), np.random.seed(7), random.seed(7)  # noqa: NPY002
        data = DataLoader(Restless(), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(3))
        tiny_trainer(max_steps=1).fit(module, data)
        drawn.append([*torch.rand(3).tolist(), np.random.rand(), random.random(), data.generator.initial_seed()])  # noqa: NPY002
        drawn[-1] += data.generator.get_state().tolist()
    assert drawn[0] == drawn[1]
    drawn = []
    for lr_time in ("auto", 0.2):
        module = tiny_module(losses={}, objective=FlowTrajectoryDistillation(lr_time), check_lr_time=False)
        torch.manual_seed(7)
        data = SRDataModule(photos=photos, crop=32, batch_size=2, samples_per_image=4)
        tiny_trainer(max_steps=1).fit(module, datamodule=data)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_every_process_measures_the_same_number_without_a_group(monkeypatch):
    found = set()
    for place in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(sum(place)), np.random.seed(sum(place)), random.seed(sum(place))  # noqa: NPY002
        module = tiny_module(losses={})
        monkeypatch.setattr(type(module), "_place", property(lambda self, place=place: place))
        source = SimpleNamespace(dataloader=lambda: DataLoader(Restless(), batch_size=2, shuffle=True))
        found.add(measure_lr_time(module.encode, samples_of(source)).lr_time)
    assert len(found) == 1


def test_no_graph_is_kept_of_an_adapted_encoder():
    module = tiny_module(
        losses={}, autoencoder=LatentAutoencoder(tiny_kl(), encoder_lora_rank=2),
        backbone=FluxBackbone(tiny_transformer(in_channels=16)),
    )  # fmt: skip
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        measure_lr_time(module.encode, [tiny_batch()])
        assert not kept
        module.encode(tiny_batch())
    assert kept


@pytest.mark.parametrize("stream", [False, True])
def test_samples_are_spread_over_the_data(stream):
    class Numbers(IterableDataset if stream else Dataset):
        def __len__(self):
            return 320

        def __getitem__(self, index):
            return torch.tensor(index)

        def __iter__(self):
            return iter(torch.arange(320))

    data = DataLoader(Numbers(), batch_size=2)
    seen = torch.cat(list(samples_of(SimpleNamespace(dataloader=lambda: data)))).tolist()
    assert seen == list(range(64) if stream else range(0, 320, 10))


def test_a_training_that_goes_on_reads_it_and_never_measures(tmp_path):
    def go_on(steps, side, checkpoint=None, **arguments):
        module = auto(**arguments)
        save = ModelCheckpoint(tmp_path, filename="last")
        trainer = tiny_trainer(
            tmp_path, max_steps=steps, callbacks=[save], enable_checkpointing=True, plugins=[AtomicCheckpointIO()]
        )
        trainer.fit(module, many(side=side), ckpt_path=checkpoint, weights_only=True)
        return module

    first = go_on(1, 32)
    other = go_on(1, 64).objective.lr_time  # other data has another T_L
    assert abs(other - first.objective.lr_time) > 1e-4
    (path,) = tmp_path.glob("last.ckpt")
    second = go_on(2, 64, path)
    assert second.objective.lr_time == first.objective.lr_time
    tiny_trainer().validate(module := auto(), many(1), ckpt_path=path, weights_only=True, verbose=False)
    assert module.objective.lr_time == first.objective.lr_time


@pytest.mark.parametrize("through", ["fit", "checkpoint"])
def test_the_modulation_table_is_built_at_the_measured_time(tmp_path, through):
    def make():
        backbone = FluxBackbone.from_transformer(tiny_transformer(in_channels=48))
        return auto(grid=GridTimes(4), modulation_table=True, backbone=backbone)

    module = make()
    save = ModelCheckpoint(tmp_path, filename="last")
    trainer = tiny_trainer(
        tmp_path, max_steps=1, callbacks=[save], enable_checkpointing=True, plugins=[AtomicCheckpointIO()]
    )
    trainer.fit(module, many())
    if through == "checkpoint":
        module = make()
        state = torch.load(tmp_path / "last.ckpt", weights_only=True)
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"], strict=module.strict_loading)
    latents = torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([module.objective.lr_time])
    assert module.backbone(latents, time).isfinite().all()
    with pytest.raises(ValueError, match="no row for t"):
        module.backbone(latents, time * 0.5)


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (1.4, False), (1.6, True), (1 / 1.6, True)])
def test_a_number_far_from_the_measured_one_is_warned_about(factor, warned, recwarn):
    module = auto()
    tiny_trainer(max_steps=1).fit(module, many())
    measured = module.objective.lr_time
    given = tiny_module(losses={}, objective=FlowTrajectoryDistillation(measured * factor))
    recwarn.clear()
    tiny_trainer(max_steps=1).fit(given, many())
    found = [str(one.message) for one in recwarn.list if "lr_time" in str(one.message)]
    assert bool(found) == warned and given.objective.lr_time == pytest.approx(measured * factor)
    assert not warned or f"{measured:.2f}" in found[0]
    assert FACTOR == 1.5


def test_where_it_cannot_be_measured_a_number_is_asked_for():
    same = tiny_batch()
    same = same._replace(lr_image=torch.full_like(same.lr_image, 0.5), hr_image=torch.full_like(same.hr_image, 0.5))
    data = DataLoader([same] * 3, batch_size=None)
    with pytest.raises(ValueError, match=r"lr_time can't be measured: .*nothing to restore"):
        tiny_trainer(max_steps=1).fit(auto(), data)
    with pytest.raises(ValueError, match="lr_time is auto and was not measured"):
        tiny_trainer().validate(auto(), many(1), verbose=False)
    given = tiny_module(losses={}, objective=FlowTrajectoryDistillation(0.3))
    tiny_trainer(max_steps=1).fit(given, data)  # a number is a number
    assert given.objective.lr_time == 0.3


@pytest.mark.parametrize("table", [False, True])
def test_the_checkpoints_time_rules_over_a_given_one(tmp_path, table):
    """It is said; a modulation table that was built at another one is refused."""

    def module(lr_time):
        return tiny_module(
            losses={},
            objective=FlowTrajectoryDistillation(lr_time, time_sampler=GridTimes(4)),
            modulation_table=table,
            check_lr_time=False,
        )

    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(module(0.25), loader(1))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = module(0.5)
    if table:
        with pytest.raises(ValueError, match=r"0\.25 in the checkpoint.*give lr_time 0\.25"):
            tiny_trainer(tmp_path, max_steps=2).fit(again, loader(2), ckpt_path=tmp_path / "last.ckpt")
        return
    with pytest.warns(UserWarning, match=r"0\.5 here and 0\.25 in the checkpoint"):
        tiny_trainer(tmp_path, max_steps=2).fit(again, loader(2), ckpt_path=tmp_path / "last.ckpt")
    assert again.objective.lr_time == 0.25
