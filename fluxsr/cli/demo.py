"""``fluxsr demo``: the whole of FluxSR in a few minutes on any machine, ending in a report."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from fluxsr.cli.demo_report import write_report
from fluxsr.cli.run import progress, progress_of, run
from fluxsr.data import RealESRGANDegradation, SRDataModule
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.inference import Upscaler
from fluxsr.losses import AttentionDiversificationLoss, LPIPSLoss, MSELoss, TVLPIPSLoss
from fluxsr.losses.weights import BACKBONES, find_weights
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR, psnr_y
from fluxsr.training.pair_maker import make_pairs

EXAMPLES = """
fluxsr demo                                     # about five minutes on two cores
fluxsr demo --minutes 2 --output outputs/short  # fewer pairs and steps
"""

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle")
SIDE = 256  # the middle square of each photo, in pixels
SCALE = 4
# Shares of the time budget. Making pairs and training stop when theirs is used up; the rest is what the others take.
PAIR_SHARE, TRAIN_SHARE = 0.15, 0.5


@dataclass
class Stage:
    """One stage of the demo: what it did, how long it took, and whether its time budget cut it short."""

    name: str
    seconds: float = 0.0
    note: str = ""


@dataclass
class DemoResult:
    """Everything that the report shows. Images are ``(3, H, W)`` in ``[0, 1]``, by photo and system."""

    stages: list[Stage] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    images: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # photo -> system -> metric
    lpips_name: str = ""


def run_demo(
    output: str = "outputs/demo", minutes: float = 5.0, num_pairs: int = 96, steps: int = 150, seed: int = 0
) -> None:
    """Make teacher pairs, distil a LoRA with FTD + TV-LPIPS + ADL, upscale photos in one step, write report.html.

    No download and no GPU. Everything is small: the teacher is the shipped nano model (2.5 M parameters), and the
    training is a few hundred steps on 128x128 images.

    Args:
        output: folder for the pairs, the adapter, the pictures and report.html.
        minutes: time budget on two cores; on a slow machine fewer pairs and steps are made, and the report says so.
        num_pairs: teacher pairs to make.
        steps: training steps.
        seed: of everything.
    """
    if minutes <= 0 or num_pairs < 8 or steps < 1:
        raise ValueError(
            f"minutes and steps must be positive and num_pairs at least 8, got {minutes}, {steps}, {num_pairs}"
        )
    quiet()
    torch.manual_seed(seed)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    result = DemoResult()
    with stage(result, "teacher pairs") as current:
        pairs = demo_pairs(folder, num_pairs, seed, minutes * 60 * PAIR_SHARE, current)
    with stage(result, "training") as current:
        student = train(folder, pairs, steps, seed, minutes * 60 * TRAIN_SHARE, result, current)
    with stage(result, "upscaling") as current:
        upscale(student, seed, result, current)
    with stage(result, "report"):
        report = write_report(folder / "report.html", result)
    print_table(result)
    print(f"\nreport: {report.resolve().as_uri()}")


@contextmanager
def stage(result: DemoResult, name: str) -> Iterator[Stage]:
    """Time a stage and announce it."""
    current = Stage(name)
    start = time.perf_counter()
    yield current
    current.seconds = time.perf_counter() - start
    result.stages.append(current)
    print(f"{name}: {current.seconds:.0f} s{f' ({current.note})' if current.note else ''}", flush=True)


def demo_pairs(folder: Path, num: int, seed: int, budget: float, current: Stage) -> Path:
    """Make as many pairs as the budget allows: one small timed store first, then the real one."""
    start = time.perf_counter()
    # In a folder of its own each time: pairs that an earlier run left would take no time at all.
    with TemporaryDirectory() as probe:
        make_pairs(probe, num=8, seed=seed, steps=10, batch_size=8, shard_size=8)
    each = (time.perf_counter() - start) / 8
    affordable = max(8, int((budget - 8 * each) / each) // 8 * 8)
    count = min(num, affordable)
    if count < num:
        current.note = f"time budget: {count} pairs instead of {num}"
    path = folder / f"pairs-{count}-{seed}"
    with progress_of("teacher pairs") as report:
        made = make_pairs(str(path), num=count, seed=seed, steps=10, batch_size=8, shard_size=32, progress=report)
    return made.folder


class Curves(Callback):
    """Keeps every logged training value, and shows the progress."""

    def __init__(self, result: DemoResult, steps: int) -> None:
        self.result = result
        self.bar = progress("training", steps)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the bar."""
        self.advance = self.bar.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Record one step."""
        self.advance(1)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/"):
                self.result.curves.setdefault(name.removeprefix("train/"), []).append(
                    (trainer.global_step, float(value))
                )

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the bar away."""
        self.bar.__exit__(None, None, None)


def train(
    folder: Path, pairs: Path, steps: int, seed: int, budget: float, result: DemoResult, current: Stage
) -> OneStepSR:
    """Distil a LoRA on the nano teacher's pairs."""
    backbone = load_flux("nano", lora_rank=16)
    module = OneStepSR(
        backbone=backbone,
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=0.25),
        losses={
            "mse": ImageTerm(MSELoss()),
            "tv_lpips": ImageTerm(TVLPIPSLoss(net="nano")),
            "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.01),
        },
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        tile=128,
        seed=seed,
    )
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps,
        max_time={"seconds": int(budget)},
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Curves(result, steps)],
    )
    trainer.fit(module, datamodule=SRDataModule(pairs=pairs, crop=128, batch_size=8, seed=seed))
    backbone.save_lora(folder / "lora.safetensors")
    current.note = f"{trainer.global_step} steps"
    if trainer.global_step < steps:
        current.note += f" instead of {steps}: time budget"
    return module.eval()


@torch.inference_mode()
def upscale(student: OneStepSR, seed: int, result: DemoResult, current: Stage) -> None:
    """Degrade held-out photos, restore them in one step with both students, and measure."""
    shipped = Upscaler.from_pretrained(device="cpu")
    systems: dict[str, Callable[[Tensor], Tensor]] = {
        "demo LoRA": student.cpu(),
        "shipped student": lambda image: shipped(image, scale=SCALE),
    }
    # VGG is what the papers measure with; where its weights are not at hand, the shipped small net stands in, by name.
    vgg_at_hand = find_weights(BACKBONES["vgg"]) is not None
    lpips = LPIPSLoss(net="vgg" if vgg_at_hand else "nano")
    result.lpips_name = "LPIPS (VGG)" if vgg_at_hand else "LPIPS (nano: our small network, not VGG)"
    degrade = RealESRGANDegradation(scale=SCALE)
    with progress("upscaling", len(PHOTOS)) as advance:
        for number, name in enumerate(PHOTOS):
            hr_image = held_out_photo(name)[None]
            lr_image = degrade(hr_image, seeds=[seed + number])
            images = {"bicubic": OneStepSR.enlarge(lr_image, hr_image.shape[-2:])}
            images |= {system: module(lr_image) for system, module in systems.items()}
            result.scores[name] = {
                system: {"PSNR-Y": float(psnr_y(image, hr_image)), "LPIPS": float(lpips(image, hr_image))}
                for system, image in images.items()
            }
            result.images[name] = {"LR": lr_image[0], **{k: v[0] for k, v in images.items()}, "HR": hr_image[0]}
            advance(1)
    current.note = f"{len(PHOTOS)} photos of {SIDE}x{SIDE}, one step each"


def held_out_photo(name: str) -> Tensor:
    """Return the middle square of one of scikit-image's photos, ``(3, 256, 256)`` in ``[0, 1]``; never trained on."""
    from skimage import data, io

    if name == "motorcycle":  # skimage's own reader of the stereo pair wants to download, though the image is there
        pixels = io.imread(Path(data.__file__).parent / "motorcycle_left.png")
    else:
        pixels = getattr(data, name)()
    image = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1).float() / 255
    top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
    return image[:, top : top + SIDE, left : left + SIDE]


def print_table(result: DemoResult) -> None:
    """Print the scores as the report shows them."""
    from rich.console import Console
    from rich.table import Table

    systems = next(iter(result.scores.values()))
    table = Table(
        "photo", *(f"{system}\nPSNR-Y / LPIPS" for system in systems), title=f"held-out photos, x4, {result.lpips_name}"
    )
    for photo, scores in {**result.scores, "mean": mean_scores(result)}.items():
        table.add_row(photo, *(f"{score['PSNR-Y']:.2f} dB / {score['LPIPS']:.3f}" for score in scores.values()))
    Console().print(table)


def mean_scores(result: DemoResult) -> dict[str, dict[str, float]]:
    """Return the mean over photos, by system and metric."""
    photos = list(result.scores.values())
    return {
        system: {metric: sum(photo[system][metric] for photo in photos) / len(photos) for metric in photos[0][system]}
        for system in photos[0]
    }


def quiet() -> None:
    """Leave the terminal to the demo: Lightning's hints are for long trainings."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


def main(arguments: list[str]) -> None:
    """Run the command."""
    run(run_demo, "demo", arguments, EXAMPLES)
