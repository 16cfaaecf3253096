"""The plan against bytes that PyTorch's profiler counts in a real training run on the CPU, with real tensors."""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from lightning import Trainer
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from fluxsr.data import SRBatch, SRDataModule
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.losses import AttentionDiversificationLoss, MSELoss, TVLPIPSLoss
from fluxsr.models import FluxBackbone, LatentAutoencoder, PixelAutoencoder, load_flux
from fluxsr.planning import Experiment, Settings, make_plan
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR
from fluxsr.training.callbacks import EMA
from tests.models.conftest import tiny_transformer
from tests.models.test_autoencoders import tiny_kl

BATCH = 4
# A FLUX of 104 M parameters.
HUNDRED_MILLION = {
    "patch_size": 1, "in_channels": 48, "num_layers": 2, "num_single_layers": 7, "attention_head_dim": 64,
    "num_attention_heads": 12, "joint_attention_dim": 64, "pooled_projection_dim": 64, "guidance_embeds": True,
    "axes_dims_rope": [8, 28, 28],
}  # fmt: skip


def nano(**options) -> FluxBackbone:
    return load_flux("nano", lora_rank=16, **options)


def nano2(**options) -> FluxBackbone:
    return load_flux("nano2", weights=False, lora_rank=16, **options)


def hundred_million(checkpointing: bool = False) -> FluxBackbone:
    from diffusers import FluxTransformer2DModel

    backbone = FluxBackbone(FluxTransformer2DModel(**HUNDRED_MILLION), None, 3.5, checkpointing)
    backbone.add_lora(rank=16)
    return backbone


def on_small_latents() -> FluxBackbone:
    torch.manual_seed(0)
    backbone = FluxBackbone(tiny_transformer(in_channels=16))
    backbone.add_lora(rank=4)
    return backbone


def make_module(backbone: FluxBackbone) -> OneStepSR:
    channels = backbone.latent_channels
    # Four channels are those of the small autoencoder, whose encoder is trained, too.
    adapted = channels == 4
    autoencoder = (
        LatentAutoencoder(tiny_kl(), encoder_lora_rank=4) if adapted else PixelAutoencoder(math.isqrt(channels // 3))
    )
    return OneStepSR(
        backbone,
        autoencoder,
        FlowTrajectoryDistillation(),
        {
            "mse": ImageTerm(MSELoss()),
            "tv_lpips": ImageTerm(TVLPIPSLoss(net="nano")),
            "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.01),
        },
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
    )


def measured_peak(
    make: Callable[[], FluxBackbone], *, batch_size: int, side: int, precision: str, accumulate: int
) -> int:
    """The most bytes that PyTorch's CPU allocator had handed out at a time, from building the module to its last step."""
    gc.collect()  # a module of an earlier test that is freed meanwhile would count as less than nothing
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make_module(make())
        hr_image = torch.rand(batch_size, 3, side, side)
        batch = SRBatch(hr_image, torch.rand(batch_size, 3, side // 4, side // 4), torch.arange(batch_size))
        trainer = Trainer(
            accelerator="cpu", devices=1, precision=precision, max_steps=2, accumulate_grad_batches=accumulate,
            gradient_clip_val=1.0, callbacks=[EMA()], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader([batch] * 2 * accumulate, batch_size=None))
    return peak_of(profiler)


def peak_of(profiler) -> int:
    """Add up the allocator's own events in the order of time."""
    changes: list[tuple[int, int]] = []
    pending = list(profiler.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        pending += event.children
        if event.name == "[memory]":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    live = most = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        live += change
        most = max(most, live)
    return most


def planned_peak(
    make: Callable[[], FluxBackbone], *, batch_size: int, side: int, precision: str, accumulate: int
) -> int:
    data = SRDataModule(photos="somewhere", crop=side, batch_size=batch_size)
    settings = Settings(precision, cuda=False, accumulate=accumulate, gradient_clip_val=1.0, average=True)
    return make_plan(Experiment(make_module(make()), data, settings)).peak_bytes


SMALL = {"gradient_checkpointing": True, "text_stream": False}


@pytest.mark.parametrize(
    ("make", "batch_size", "side", "precision", "accumulate", "tolerance"),
    [
        pytest.param(nano, BATCH, 128, "32-true", 1, 0.1, id="plain"),
        pytest.param(lambda: nano(gradient_checkpointing=True), BATCH, 128, "32-true", 2, 0.1, id="checkpointing"),
        pytest.param(nano, BATCH, 128, "bf16-mixed", 1, 0.1, id="bf16"),
        pytest.param(nano2, BATCH, 128, "32-true", 1, 0.02, id="flux2"),
        pytest.param(lambda: nano2(**SMALL), BATCH, 128, "32-true", 1, 0.02, id="small flux2"),
        pytest.param(nano2, BATCH, 128, "bf16-mixed", 1, 0.02, id="flux2, bf16", marks=pytest.mark.slow),
        pytest.param(lambda: nano2(**SMALL), BATCH, 128, "bf16-mixed", 1, 0.02, id="both", marks=pytest.mark.slow),
        pytest.param(on_small_latents, BATCH, 64, "32-true", 1, 0.1, id="adapted encoder"),
        pytest.param(hundred_million, 1, 64, "32-true", 1, 0.1, id="100 million", marks=pytest.mark.slow),
        pytest.param(lambda: hundred_million(True), 1, 64, "32-true", 1, 0.1, id="and less", marks=pytest.mark.slow),
    ],
)
def test_the_peak_is_what_the_profiler_counts(make, batch_size, side, precision, accumulate, tolerance):
    how = {"batch_size": batch_size, "side": side, "precision": precision, "accumulate": accumulate}
    assert planned_peak(make, **how) == pytest.approx(measured_peak(make, **how), rel=tolerance)


@pytest.mark.parametrize("tile", [None, 64], ids=["whole", "tiles"])
def test_a_validation_too(tile):
    """A photo so large beside the crops trained on that the largest moment of all is its validation."""
    side, crop = 256, 32

    def make() -> OneStepSR:
        module = make_module(nano())
        module.tile = tile
        return module

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = [
            SRBatch(torch.rand(1, 3, hr, hr), torch.rand(1, 3, hr // 4, hr // 4), torch.arange(1))
            for hr in (crop, side)
        ]
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=2, gradient_clip_val=1.0, callbacks=[EMA()], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(make(), *(DataLoader([batch] * 2, batch_size=None) for batch in batches))
    measured = peak_of(profiler)
    data = SRDataModule(photos="somewhere", val_photos="elsewhere", crop=crop)
    settings = Settings("32-true", cuda=False, gradient_clip_val=1.0, average=True)
    plan = make_plan(Experiment(make(), data, settings), photo=(side, side))
    assert plan.validation is not None and plan.validation.tile == tile
    assert plan.needed_bytes == plan.validation.peak_bytes > plan.peak_bytes
    assert plan.validation.peak_bytes == pytest.approx(measured, rel=0.02)
