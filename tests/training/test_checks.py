"""What a training refuses before its first step: precisions that can't train, a scale that is stated twice, other pairs."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from fluxsr.data import SRDataModule
from fluxsr.data.degradation import BicubicDegradation, CameraDegradation, DegradationMix, RealESRGANDegradation
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.training import ImageTerm
from fluxsr.training.callbacks import ExportBackbone
from fluxsr.training.checks import FiniteGuard, NotFinite, check_pairs, check_precision
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer

WIDE, NARROW = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("precision", "weight", "adversarial", "refused"),
    [
        ("32-true", WIDE, False, None),
        ("64-true", WIDE.double(), False, None),
        ("bf16-mixed", WIDE, True, None),
        ("16-mixed", WIDE, False, None),
        ("bf16-true", WIDE, False, "bf16-mixed"),
        ("16-true", WIDE, False, "16-mixed"),
        ("bf16-mixed", NARROW, False, "bfloat16.*rounding"),
        ("32-true", NARROW, False, "bfloat16.*rounding"),
        ("16-mixed", WIDE, True, "bf16-mixed"),
    ],
)
def test_which_precision_can_train_what(precision, weight, adversarial, refused):
    with nullcontext() if refused is None else pytest.raises(ValueError, match=refused):
        check_precision(precision, {"weight": weight}, adversarial)


@pytest.mark.parametrize(("trainable", "refused"), [("full", True), ("lora", False)])
def test_the_weights_are_looked_at_and_only_for_a_training(trainable, refused):
    backbone = load_flux("nano", trainable=trainable, dtype="bfloat16")
    module = tiny_module(backbone=backbone, lora=None, losses={}, autoencoder=PixelAutoencoder())
    data = DataLoader([tiny_batch()], batch_size=None)
    tiny_trainer().validate(module, data, verbose=False)
    with pytest.raises(ValueError, match="bfloat16") if refused else nullcontext():
        tiny_trainer(max_steps=1, precision="bf16-mixed").fit(module, data)


def batch_of(scale):
    batch = tiny_batch()
    return batch._replace(lr_image=torch.nn.functional.interpolate(batch.hr_image, scale_factor=1 / scale, mode="area"))


@pytest.mark.parametrize("kind", ["data module", "loader", "dictionaries"])
@pytest.mark.parametrize(
    ("given", "data", "found"), [(None, 2, 2), (2, 2, 2), (None, 4, 4), (4, 2, None), (2, 4, None)]
)
def test_the_data_say_the_scale(photos, kind, given, data, found):
    module = tiny_module(losses={}, scale=given, check_lr_time=False)
    if kind == "data module":
        source = {"datamodule": SRDataModule(photos=photos, predict=photos, scale=data, crop=32)}
    else:
        batch = batch_of(data)
        batch = batch if kind == "loader" else {"lr_image": batch.lr_image, "hr_image": batch.hr_image}
        source = {"train_dataloaders": DataLoader([batch], batch_size=None)}
    with nullcontext() if found else pytest.raises(ValueError, match=f"scale is {given} and the data's {data}"):
        tiny_trainer(max_steps=1).fit(module, **source)
    if found:
        assert module.scale == found
        assert module(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8 * found, 8 * found)


def test_without_data_the_scale_is_the_argument_or_four(photos):
    assert tiny_module(losses={}).scale == 4 and tiny_module(losses={}, scale=3).scale == 3
    module = tiny_module(losses={})
    predict = SRDataModule(predict=photos, scale=2)
    (first, *_) = tiny_trainer(limit_predict_batches=1).predict(module, datamodule=predict)
    assert module.scale == 2 and first.shape[-1] % 2 == 0


@pytest.mark.parametrize(
    ("degradation", "refused"),
    [
        (RealESRGANDegradation(), False),
        (RealESRGANDegradation(2), False),
        (DegradationMix([BicubicDegradation(), CameraDegradation()], [1, 1]), False),
        (RealESRGANDegradation(4), True),
        (DegradationMix([BicubicDegradation(4), CameraDegradation()], [1, 1]), True),
    ],
)
def test_the_data_hand_their_scale_to_the_degradation(photos, degradation, refused):
    data = SRDataModule(photos=photos, scale=2, crop=32, degradation=degradation)
    with pytest.raises(ValueError, match="scale is 2 and the degradation's 4") if refused else nullcontext():
        data.setup("fit")
    if not refused:
        assert degradation.scale == 2 and data.train_set[0].lr_image.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("pairs", "refused"),
    [
        ({}, False),
        ({"autoencoder": {"kind": "KL", "scale": 0.36, "weights": "bytes:1"}}, False),
        ({"autoencoder": {"kind": "KL", "scale": 0.36}}, False),  # version 0.2 had no digest
        ({"autoencoder": {"kind": "KL", "scale": 0.36, "weights": "bytes:2"}}, True),
        ({"autoencoder": {"kind": "KL", "scale": 1.0}}, True),
    ],
)
def test_pairs_of_another_autoencoder_are_refused(pairs, refused):
    with pytest.raises(ValueError, match="another autoencoder") if refused else nullcontext():
        check_pairs(pairs, {"kind": "KL", "scale": 0.36, "weights": "bytes:1"})


# ---- NaN stops a training before it reaches a file -------------------------------------------------------------


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
