"""Runs the demo: teacher pairs, a short training, one-step upscaling of held-out photos and a report, in a few minutes."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from fluxsr.data import SRDataModule, mild_degradation
from fluxsr.digest import file_digest
from fluxsr.evaluation.metrics import Settings
from fluxsr.evaluation.report import Stage, write_report
from fluxsr.evaluation.run import evaluate
from fluxsr.evaluation.systems import System, bicubic, load_model
from fluxsr.evaluation.tables import print_table
from fluxsr.evaluation.testset import open_folders
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.images import write_image
from fluxsr.inference import Upscaler
from fluxsr.losses import AttentionDiversificationLoss, MSELoss, TVLPIPSLoss
from fluxsr.losses.weights import BACKBONES, find_weights
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.progress import progress, progress_of
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR
from fluxsr.training.pair_maker import make_pairs

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle")
SIDE = 256  # the middle square of each photo, in pixels
SCALE = 4
PERIOD = 8  # side of a nano token in pixels
LR_TIME = 0.25  # T_L, as in the shipped student
BEFORE, DEMO, SHIPPED = "before training", "demo LoRA", "shipped student"
# Shares of the time budget. Making pairs and training stop when theirs is used up; the rest is what the others take.
PAIR_SHARE, TRAIN_SHARE = 0.15, 0.5

TOY = """\
What this shows. "Before training" is the teacher, a flow model that draws pictures from noise, asked to restore in one
step: it was never trained to. "Demo LoRA" is the same model after a few minutes of FluxSR's method on pairs that the
teacher drew itself, without a single photo. "Shipped student" is the model in this package, which the same code trained on
photos for hours. The photos below were never trained on; they are reduced to a quarter, with the little blur, noise and
JPEG of a photo on the web.
What is a toy here. The teacher has FLUX's blocks, but 2.5 M parameters instead of 12 B, works on pixels and has no
text. It draws textures, not scenes. The degradation, the losses, the objective and the one-step restoration are the
real ones."""


def run_demo(
    output: str = "outputs/demo", minutes: float = 5.0, num_pairs: int = 96, steps: int = 150, seed: int = 0
) -> None:
    """Make teacher pairs, distill a LoRA with FTD + TV-LPIPS + ADL, upscale photos in one step, write report.html.

    No download and no GPU. Everything is small: the teacher is the shipped nano model (2.5 M parameters), and the
    training is a few hundred steps on 128x128 images.

    Args:
        output: Folder for the pairs, the adapter, the pictures and report.html.
        minutes: Time budget on two cores; on a slow machine fewer pairs and steps are made, and the report says so.
        num_pairs: Teacher pairs to make.
        steps: Training steps.
        seed: Seed of everything.

    Raises:
        ValueError: If a number is out of range.
    """
    if minutes <= 0 or num_pairs < 8 or steps < 1:
        raise ValueError(
            f"minutes and steps must be positive and num_pairs at least 8, got {minutes}, {steps}, {num_pairs}"
        )
    _quiet()
    torch.manual_seed(seed)
    folder = Path(output)
    photos = save_photos(folder / "photos")
    stages: list[Stage] = []
    with _timed(stages, "teacher pairs") as stage:
        pairs = demo_pairs(folder, num_pairs, seed, minutes * 60 * PAIR_SHARE, stage)
    with _timed(stages, "training") as stage:
        train(folder, pairs, steps, seed, minutes * 60 * TRAIN_SHARE, stage)
    with _timed(stages, "upscaling") as stage:
        results = measure(folder, photos, seed)
        stage.note = f"{len(PHOTOS)} photos of {SIDE}x{SIDE}, one step each"
    report = write_report(
        [folder / "results.json"],
        folder / "report.html",
        folder / "logs",
        len(PHOTOS),
        DEMO,
        "fluxsr demo",
        TOY,
        stages,
    )
    print_table(results)
    print(f"\nreport: {report.resolve().as_uri()}")


@contextmanager
def _timed(stages: list[Stage], name: str) -> Iterator[Stage]:
    """Time a stage and announce it."""
    stage = Stage(name)
    start = time.perf_counter()
    yield stage
    stage.seconds = time.perf_counter() - start
    stages.append(stage)
    print(f"{name}: {stage.seconds:.0f} s{f' ({stage.note})' if stage.note else ''}", flush=True)


def demo_pairs(folder: Path, num: int, seed: int, budget: float, stage: Stage) -> Path:
    """Make as many pairs as the budget allows: one small timed store first, then the real one."""
    start = time.perf_counter()
    # In a folder of its own each time: pairs that an earlier run left would take no time at all.
    with TemporaryDirectory() as probe:
        make_pairs(probe, num=8, seed=seed, steps=10, batch_size=8, shard_size=8)
    each = (time.perf_counter() - start) / 8
    affordable = max(8, int((budget - 8 * each) / each) // 8 * 8)
    count = min(num, affordable)
    if count < num:
        stage.note = f"time budget: {count} pairs instead of {num}"
    path = str(folder / f"pairs-{count}-{seed}")
    with progress_of("teacher pairs") as report:
        return make_pairs(path, num=count, seed=seed, steps=10, batch_size=8, shard_size=32, progress=report).folder


def train(folder: Path, pairs: Path, steps: int, seed: int, budget: float, stage: Stage) -> None:
    """Distill a LoRA on the nano teacher's pairs; the curves go to ``logs``, the adapter to ``lora.safetensors``."""
    backbone = load_flux("nano", lora_rank=16)
    module = OneStepSR(
        backbone=backbone,
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=LR_TIME),
        losses={
            "mse": ImageTerm(MSELoss()),
            "tv_lpips": ImageTerm(TVLPIPSLoss(net="nano")),
            "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.01),
        },
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        seed=seed,
    )
    data = SRDataModule(pairs=pairs, degradation=mild_degradation(SCALE), crop=128, batch_size=8, seed=seed)
    with progress_of("training") as report:
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            max_steps=steps,
            max_time={"seconds": int(budget)},
            gradient_clip_val=1.0,
            logger=CSVLogger(folder, name="logs", version=""),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[LambdaCallback(on_train_batch_end=lambda trainer, *_: report(trainer.global_step, steps))],
        )
        trainer.fit(module, datamodule=data)
    backbone.save(folder / "lora.safetensors", metadata={"start_time": str(LR_TIME)})
    stage.note = f"{trainer.global_step} steps"
    if trainer.global_step < steps:
        stage.note += f" instead of {steps}: time budget"


def measure(folder: Path, photos: Path, seed: int) -> dict[str, Any]:
    """Degrade the held-out photos, restore them before and after training, and measure as ``fluxsr evaluate`` does."""
    degrade = mild_degradation(SCALE)
    testset = open_folders(
        str(photos),
        None,
        SCALE,
        lambda image, number: degrade(image, seeds=[seed + number]),
        f"mild damage, seed {seed}",
    )
    lora = folder / "lora.safetensors"
    before = Upscaler.from_pretrained("nano", start_time=LR_TIME, device="cpu")
    own = Upscaler.from_pretrained("nano", lora=lora, device="cpu")
    systems = [
        bicubic(),
        _system(BEFORE, before, "nano"),
        _system(DEMO, own, file_digest(lora)),
        load_model("nano-student", SHIPPED, device="cpu"),
    ]
    # VGG is what the papers measure with; where its weights are not at hand, the shipped small net stands in, by name.
    lpips = "lpips_vgg" if find_weights(BACKBONES["vgg"]) is not None else "lpips_nano"
    with progress("upscaling", len(PHOTOS) * len(systems)) as advance:
        return evaluate(
            testset, systems, ["psnr", lpips, "artefact_db"], Settings(period=PERIOD), folder / "results.json",
            folder / "pictures", advance,
        )  # fmt: skip


def _system(name: str, upscaler: Upscaler, identity: str) -> System:
    """Return an upscaler as a system to measure."""
    return System(name, "trained here", identity, restore=lambda lr_image, size: upscaler(lr_image, size=size))


def save_photos(folder: Path) -> Path:
    """Write the held-out photos as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        write_image(folder / f"{name}.png", held_out_photo(name))
    return folder


def held_out_photo(name: str) -> Tensor:
    """Return the middle square of one of scikit-image's photos, ``(3, 256, 256)`` in ``[0, 1]``; never trained on.

    Raises:
        ValueError: If scikit-image is not installed.
    """
    try:
        from skimage import data, io
    except ImportError as error:
        raise ValueError("the demo's photos come with scikit-image: pip install 'fluxsr[demo]'") from error
    if name == "motorcycle":  # skimage's own reader of the stereo pair wants to download, though the image is there
        pixels = io.imread(Path(data.__file__).parent / "motorcycle_left.png")
    else:
        pixels = getattr(data, name)()
    image = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1).float() / 255
    top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
    return image[:, top : top + SIDE, left : left + SIDE]


def _quiet() -> None:
    """Leave the terminal to the demo: Lightning's hints are for long trainings."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
