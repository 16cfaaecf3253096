"""Runs the demo: teacher pairs, a short training, one-step upscaling of held-out photos and a report, in a few minutes."""

from __future__ import annotations

import logging
import math
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
from torch.nn import functional as F

from fluxsr.data import RealESRGANDegradation, SecondStageRanges, SRDataModule, StageRanges
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
from fluxsr.losses import AttentionDiversificationLoss, L1Loss, PeriodicityLoss, TVLPIPSLoss
from fluxsr.losses.weights import BACKBONES, find_weights
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.progress import progress_of
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR
from fluxsr.training.pair_maker import make_pairs

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SIDE = 256  # the middle square of each photo, in pixels
SCALE = 4
PERIOD = 8  # side of a nano token in pixels
LR_TIME = 0.25  # T_L, as in the shipped student
CROP = 128  # what it is trained on, and the window that it works in
DEMO, SHIPPED = "demo LoRA", "shipped student"
# Shares of the time budget. Making pairs and training stop when theirs is used up; the rest is what the others take.
PAIR_SHARE, TRAIN_SHARE = 0.15, 0.6
# What two idle cores do in three quarters of these shares, so that a slightly busy machine still does the same.
PAIRS_PER_MINUTE, STEPS_PER_MINUTE = 20, 30
# Pictures to train on that come with scikit-image, and how much each is shrunk.
PICTURES = {
    "camera": 1,
    "motorcycle": 1,
    "grass": 1,
    "coins": 1,
    "moon": 1,
    "hubble_deep_field": 2,
    "immunohistochemistry": 1,
    "retina": 2,
}

TOY = """\
What this shows. The shipped student learned to restore photos of every kind of damage, on photos, for hours. Here a LoRA
on it was trained for a minute or two, for one damage alone: that of an old phone, with a little blur, grain, and JPEG
twice. It learned by FluxSR's method, from pairs that the teacher drew and from eight pictures that come with scikit-image.
The four photos below were never trained on, by either. So the table compares three: bicubic interpolation, the student as
it ships, and the student as it was adapted here.
What is a toy here. The teacher and the student have FLUX's blocks, but 2.5 M and 4.7 M parameters instead of 12 B. They
work on pixels and have no text. The teacher draws textures, not scenes. The degradation, the losses, the objective and the
one-step restoration are the real ones.
What an hour gives. "fluxsr demo --minutes 60" makes twelve times as many pairs and steps. A run of that length gave PSNR-Y
26.72 dB and LPIPS (VGG) 0.423. On the same photos bicubic has 26.72 dB and 0.459, and the shipped student, which was
trained for hours on 235 photos, 26.57 dB and 0.397. Eight pictures are too few to gain from an hour: use your own."""


def run_demo(
    output: str = "outputs/demo",
    minutes: float = 5.0,
    num_pairs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> None:
    """Make teacher pairs, adapt the student with FTD + TV-LPIPS + ADL, upscale photos in one step, write report.html.

    No download and no GPU. Everything is small: the models are the shipped ones (2.5 M and 4.7 M parameters), and the
    training is a few hundred steps on 128x128 images, for the damage of an old phone.

    Args:
        output: Folder for the pairs, the adapter, the pictures and report.html.
        minutes: Time budget on two cores; on a slow machine fewer pairs and steps are made, and the report says so.
        num_pairs: Teacher pairs to make (default: 20 for each minute).
        steps: Training steps (default: 30 for each minute).
        seed: Seed of everything.

    Raises:
        ValueError: If a number is out of range.
    """
    for name, value, least in (("minutes", minutes, 0.01), ("num_pairs", num_pairs, 8), ("steps", steps, 1)):
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    num_pairs = max(8, round(PAIRS_PER_MINUTE * minutes)) if num_pairs is None else num_pairs
    steps = max(1, round(STEPS_PER_MINUTE * minutes)) if steps is None else steps
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
    made = min(num, affordable)
    if made < num:
        stage.note = f"time budget: {made} pairs instead of {num}"
    path = str(folder / f"pairs-{made}-{seed}")
    with progress_of("teacher pairs") as report:
        return make_pairs(path, num=made, seed=seed, steps=10, batch_size=8, shard_size=32, progress=report).folder


def old_phone() -> RealESRGANDegradation:
    """Return what a phone of 2010 and an upload make of a photo: a little blur, grain, and JPEG twice."""
    ranges: dict[str, Any] = {"resize_prob": (0.1, 0.2, 0.7), "resize_range": (0.8, 1.1), "jpeg_range": (50, 85)}
    return RealESRGANDegradation(
        SCALE,
        first=StageRanges(blur_sigma=(0.2, 1.0), noise_range=(2, 12), poisson_scale_range=(0.1, 0.8), **ranges),
        second=SecondStageRanges(noise_range=(1, 6), poisson_scale_range=(0.05, 0.4), **ranges),
        second_blur_prob=0.3,
        final_sinc_prob=0.3,
    )


def train(folder: Path, pairs: Path, steps: int, seed: int, budget: float, stage: Stage) -> None:
    """Adapt the student on teacher pairs and pictures; the curves go to ``logs``, the adapter to ``lora.safetensors``."""
    backbone = load_flux("nano-student", lora_rank=16)
    module = OneStepSR(
        backbone=backbone,
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=LR_TIME),
        flow_weight=0.25,
        losses={
            "l1": ImageTerm(L1Loss(), weight=4.0),
            "tv_lpips": ImageTerm(TVLPIPSLoss(net="nano")),
            "periodicity": ImageTerm(PeriodicityLoss(period=PERIOD)),
            "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.01),
        },
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        seed=seed,
    )
    photos = save_pictures(folder / "training_pictures")
    data = SRDataModule(
        pairs=pairs, photos=str(photos), degradation=old_phone(), crop=CROP, batch_size=8, samples_per_image=64, cache=True,
        seed=seed,
    )  # fmt: skip
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
            callbacks=[
                LambdaCallback(on_train_batch_end=lambda trainer, *_: report and report(trainer.global_step, steps))
            ],
        )
        trainer.fit(module, datamodule=data)
    backbone.save(folder / "lora.safetensors", record=backbone.record.given(start_time=LR_TIME, window=CROP))
    stage.note = f"{trainer.global_step} steps"
    if trainer.global_step < steps:
        stage.note += f" instead of {steps}: time budget"


def measure(folder: Path, photos: Path, seed: int) -> dict[str, Any]:
    """Degrade the held-out photos, restore them with the student before and after, and measure as ``fluxsr evaluate`` does."""
    degrade, lora = old_phone(), folder / "lora.safetensors"
    testset = open_folders(
        str(photos),
        None,
        SCALE,
        lambda image, number: degrade(image, seeds=[seed + number]),
        f"an old phone's, seed {seed}",
    )
    own = Upscaler.from_pretrained("nano-student", lora=lora, device="cpu")
    systems = [
        bicubic(),
        load_model("nano-student", SHIPPED, device="cpu"),
        System(DEMO, "trained here", file_digest(lora), restore=lambda lr_image, size: own(lr_image, size=size)),
    ]
    # VGG is what the papers measure with; where its weights are not at hand, the shipped small net stands in, by name.
    lpips = "lpips_vgg" if find_weights(BACKBONES["vgg"]) is not None else "lpips_nano"
    with progress_of("upscaling") as report:
        return evaluate(
            testset, systems, ["psnr", lpips, "artefact_db"], Settings(period=PERIOD), folder / "results.json",
            folder / "pictures", report,
        )  # fmt: skip


def save_photos(folder: Path) -> Path:
    """Write the held-out photos as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        write_image(folder / f"{name}.png", held_out_photo(name))
    return folder


def save_pictures(folder: Path) -> Path:
    """Write scikit-image's pictures to train on as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shrink in PICTURES.items():
        image = _picture(name)
        write_image(folder / f"{name}.png", F.avg_pool2d(image[None], shrink)[0])
    return folder


def held_out_photo(name: str) -> Tensor:
    """Return the middle square of one of scikit-image's photos, ``(3, 256, 256)`` in ``[0, 1]``; never trained on."""
    image = _picture(name)
    top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
    return image[:, top : top + SIDE, left : left + SIDE]


def _picture(name: str) -> Tensor:
    """Return one of scikit-image's pictures, ``(3, H, W)`` in ``[0, 1]``."""
    try:
        from skimage import data, io
    except ImportError as error:
        raise ValueError("the demo's photos come with scikit-image: pip install 'fluxsr[demo]'") from error
    if name == "motorcycle":  # skimage's own reader of the stereo pair wants to download, though the image is there
        pixels = io.imread(Path(data.__file__).parent / "motorcycle_left.png")
    else:
        pixels = getattr(data, name)()
    pixels = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=-1)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def _quiet() -> None:
    """Leave the terminal to the demo: Lightning's hints are for long trainings."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
