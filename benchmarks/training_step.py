"""What the Lightning step and ADL add to a training step, against a hand-written loop of the same maths."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from lightning import Callback, Trainer
from torch.utils.data import DataLoader

from fluxsr.data import SRBatch
from fluxsr.flows import FlowTrajectoryDistillation, LatentPair
from fluxsr.losses import AttentionDiversificationLoss, MSELoss
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR

BATCH, SIDE = 4, 128


def make_batch() -> SRBatch:
    generator = torch.Generator().manual_seed(0)
    hr_image = torch.rand(BATCH, 3, SIDE, SIDE, generator=generator)
    lr_image = torch.nn.functional.interpolate(hr_image, scale_factor=0.25, mode="area")
    return SRBatch(hr_image, lr_image, torch.arange(BATCH))


def make_module(adl: bool) -> OneStepSR:
    torch.manual_seed(0)
    losses = {"mse": ImageTerm(MSELoss())}
    if adl:
        losses["adl"] = FeatureTerm(AttentionDiversificationLoss(), weight=0.01)
    return OneStepSR(
        load_flux("nano", lora_rank=16),
        PixelAutoencoder(),
        FlowTrajectoryDistillation(),
        losses,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
    )


class StepTimes(Callback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        now = time.perf_counter()
        if self.times:
            self.times[-1] = now - self.times[-1]
        self.times.append(now)


def lightning_steps(count: int, adl: bool = False) -> float:
    """Median seconds from the start of one step to the start of the next."""
    clock = StepTimes()
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=count + 1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock], gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(make_module(adl), DataLoader([make_batch()] * (count + 1), batch_size=None))
    return statistics.median(clock.times[1:-1])


def hand_written_steps(count: int) -> float:
    """The same maths without Lightning, the module and the objective."""
    torch.manual_seed(0)
    backbone, autoencoder = load_flux("nano", lora_rank=16), PixelAutoencoder()
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    batch, lr_time, times = make_batch(), 0.25, []
    for step in range(count):
        start = time.perf_counter()
        enlarged = torch.nn.functional.interpolate(batch.lr_image, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
        pair = LatentPair(autoencoder.encode(batch.hr_image), autoencoder.encode(enlarged))
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(pair.hr.shape, generator=generator)
        t = lr_time + (1 - lr_time) * torch.rand(BATCH, generator=generator)
        share = ((t - lr_time) / (1 - lr_time)).reshape(-1, 1, 1, 1)
        v = backbone((1 - share) * pair.lr + share * noise, t)
        flow = ((pair.lr - pair.hr) - lr_time * v).square().mean()
        restored = pair.lr - lr_time * backbone(pair.lr, torch.full((BATCH,), lr_time))
        loss = flow + (autoencoder.decode(restored) - batch.hr_image).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleaved(first: Callable[[], float], second: Callable[[], float], rounds: int) -> float:
    """Median ratio of ``first`` to ``second`` over alternating rounds: other load hits both alike."""
    return statistics.median(first() / second() for _ in range(rounds))


def run(rounds: int = 5, steps: int = 10) -> dict[str, float]:
    """Return the two ratios."""
    return {
        "Lightning step / hand-written loop": interleaved(
            lambda: lightning_steps(steps), lambda: hand_written_steps(steps), rounds
        ),
        "step with ADL / without": interleaved(
            lambda: lightning_steps(steps, adl=True), lambda: lightning_steps(steps), rounds
        ),
    }


def main() -> None:
    for name, value in run().items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
