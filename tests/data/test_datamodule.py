import json
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from torch import Tensor

from fluxsr.data import (
    BicubicDegradation,
    LRBatch,
    PairStore,
    SecondStageRanges,
    SRBatch,
    SRDataModule,
    StageRanges,
)
from fluxsr.images import list_images


class Recorder(LightningModule):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[SRBatch] = []
        self.validated: list[SRBatch] = []

    def training_step(self, batch: SRBatch, batch_index: int) -> Tensor:
        self.trained.append(batch)
        return self.weight * batch.lr_image.mean()

    def validation_step(self, batch: SRBatch, batch_index: int) -> None:
        self.validated.append(batch)

    def test_step(self, batch: SRBatch, batch_index: int) -> None:
        self.validated.append(batch)

    def predict_step(self, batch: LRBatch, batch_index: int) -> LRBatch:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def make_trainer(tmp_path, **options: object) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, **options,
    )  # fmt: skip


@pytest.fixture
def pairs(tmp_path) -> PairStore:
    store = PairStore.create_or_resume(tmp_path / "pairs", {"model": "m"}, 4, 4, latent_shape=(4, 8, 8))
    noise = torch.stack([store.noise(index) for index in range(4)])
    store.write_shard(0, noise, torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return store


def test_a_training_run(tmp_path, photos) -> None:
    data = SRDataModule(photos=photos, val_photos=photos, crop=32, batch_size=2, num_workers=1)
    module = Recorder()
    make_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0).fit(module, data)
    assert len(module.trained) == 6
    first, second = module.trained[:3], module.trained[3:]
    for batches in (first, second):
        assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(6))
        assert all(batch.hr_image.shape == (2, 3, 32, 32) for batch in batches)
        assert all(batch.lr_image.shape == (2, 3, 8, 8) for batch in batches)
    # Epoch 1 reached the worker that has lived since epoch 0.
    train_set = data.train_set
    for epoch, batches in enumerate((first, second)):
        for row, index in enumerate(batches[0].index.tolist()):
            assert torch.equal(batches[0].lr_image[row], train_set[(epoch, index)].lr_image)
    assert [batch.index.tolist() for batch in module.validated] == [[index] for index in range(6)] * 2
    assert torch.equal(module.validated[1].lr_image, module.validated[7].lr_image)
    assert module.validated[0].hr_image.shape == (1, 3, 96, 80)


@pytest.mark.filterwarnings("ignore:Total length of `list`")
def test_pairs_alone_have_latents(tmp_path, pairs) -> None:
    module = Recorder()
    data = SRDataModule(pairs=pairs.path, crop=16, batch_size=4)
    make_trainer(tmp_path, max_epochs=1).fit(module, data)
    (batch,) = module.trained
    assert batch.hr_latents.shape == batch.noise.shape == (4, 4, 4, 4)
    assert data.val_dataloader() == []


def test_photos_and_pairs_together(photos, pairs) -> None:
    data = SRDataModule(photos=photos, pairs=pairs.path, crop=32, batch_size=1)
    loader = data.train_dataloader()
    assert len(loader) == 10
    batches = {int(batch.index): batch for batch in loader}
    assert set(batches) == set(range(10))
    assert all((batches[index].hr_latents is None) == (index < 6) for index in range(10))
    assert torch.equal(batches[9].noise[0], pairs.noise(3))


def test_paired_folders(tmp_path, photo_like, save_photo) -> None:
    for index in range(3):
        image = photo_like(48, 64, seed=index)
        save_photo(tmp_path / "hr" / f"{index}.png", image)
        save_photo(tmp_path / "lr" / f"{index}.png", image[:, ::2, ::2])
    folders = {"hr": str(tmp_path / "hr"), "lr": str(tmp_path / "lr")}
    data = SRDataModule(
        photos=folders["hr"], paired_lr=folders["lr"], val_photos=folders["hr"], val_paired_lr=folders["lr"],
        test_photos=folders["hr"], test_paired_lr=folders["lr"], scale=2, crop=32, val_crop=16, batch_size=3,
    )  # fmt: skip
    data.setup()
    (batch,) = data.train_dataloader()
    assert batch.lr_image.shape == (3, 3, 16, 16)
    (batch,) = data.val_dataloader()
    assert torch.equal(batch.lr_image, batch.hr_image[..., ::2, ::2])
    assert [batch.hr_image.shape for batch in data.test_dataloader()] == [(1, 3, 48, 64)] * 3


def test_prediction_and_test(tmp_path, photos) -> None:
    data = SRDataModule(predict=str(photos), test_photos=photos, degradation=BicubicDegradation(), val_multiple_of=16)
    trainer = make_trainer(tmp_path)
    batches = trainer.predict(Recorder(), data)
    assert [batch.paths for batch in batches] == [[str(path)] for path in list_images(photos)]
    assert batches[1].lr_image.shape == (1, 3, 80, 120)
    module = Recorder()
    trainer.test(module, data)
    assert [tuple(batch.hr_image.shape[2:]) for batch in module.validated][:2] == [(96, 80), (80, 112)]


@pytest.mark.filterwarnings("ignore:[\\s\\S]*instantiate_classes")
def test_a_yaml_names_the_degradation(tmp_path, photos) -> None:
    config = {
        "class_path": "fluxsr.data.SRDataModule",
        "init_args": {
            "photos": str(photos),
            "crop": 64,
            "degradation": {
                "class_path": "fluxsr.data.RealESRGANDegradation",
                "init_args": {"first": {"blur_sigma": [0.2, 1.0]}, "second": {"jpeg_range": [60, 95]}},
            },
        },
    }
    (tmp_path / "config.yaml").write_text(json.dumps({"data": config}))  # JSON is YAML
    parser = ArgumentParser(parser_mode="omegaconf+")
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(SRDataModule, "data")
    arguments = [
        f"--config={tmp_path / 'config.yaml'}",
        "--data.crop=32",
        "--data.degradation.first.jpeg_range=[50,60]",
    ]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert data.degradation.first == StageRanges(blur_sigma=(0.2, 1.0), jpeg_range=(50, 60))
    assert data.degradation.second == SecondStageRanges(jpeg_range=(60, 95))
    assert next(iter(data.train_dataloader())).lr_image.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "stage", "message"),
    [
        ({}, "fit", r"nothing to train on: give data\.photos"),
        ({}, "validate", r"nothing to evaluate on: give data\.val_photos"),
        ({}, "test", r"give data\.test_photos"),
        ({}, "predict", r"give data\.predict"),
        ({"photos": "a", "paired_lr": "x", "enlarge": (1, 2)}, "fit", r"data\.enlarge is for photos"),
        ({"paired_lr": "x"}, "fit", r"data\.paired_lr was given without data\.photos"),
        ({"photos": ["a", "b"], "paired_lr": "x"}, "fit", r"data\.paired_lr goes with one folder in data\.photos"),
        ({"photos": "/no/such/folder"}, "fit", "/no/such/folder doesn't exist"),
    ],
)
def test_bad_settings(arguments: dict, stage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRDataModule(**arguments).setup(stage)


def test_bad_sizes(photos) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1 and num_workers 0, got 0 and 0"):
        SRDataModule(batch_size=0)
    data = SRDataModule(photos=photos, crop=32, batch_size=7)
    with pytest.raises(ValueError, match=r"6 training samples are fewer than one batch of 7 on each of 1 process"):
        data.train_dataloader()
    assert len(SRDataModule(photos=photos, crop=32, batch_size=7, samples_per_image=3).train_dataloader()) == 2


def test_ranks_share_the_global_batches(photos, monkeypatch) -> None:
    def epoch(world_size: int, rank: int) -> list[SRBatch]:
        data = SRDataModule(photos=photos, crop=16, batch_size=4 // world_size, samples_per_image=2, seed=3)
        progress = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(ready=0)))
        data.trainer = SimpleNamespace(
            world_size=world_size, global_rank=rank, fit_loop=SimpleNamespace(epoch_loop=progress)
        )
        return list(data.train_dataloader())

    one, ranks = epoch(1, 0), [epoch(2, 0), epoch(2, 1)]
    assert len(one) == 3
    for step, whole in enumerate(one):
        rows = {
            int(index): lr for rank in ranks for index, lr in zip(rank[step].index, rank[step].lr_image, strict=True)
        }
        assert sorted(rows) == sorted(whole.index.tolist())
        for index, lr_image in zip(whole.index, whole.lr_image, strict=True):
            assert torch.equal(rows[int(index)], lr_image)
