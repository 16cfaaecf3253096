from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from fluxsr.data import SRBatch
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.losses import AttentionDiversificationLoss, MSELoss, TVLPIPSLoss
from fluxsr.models import FluxBackbone, PixelAutoencoder
from fluxsr.training import FeatureTerm, ImageTerm, LatentTerm, OneStepSR
from tests.models.conftest import tiny_transformer

ROOT = Path(__file__).parents[2]


def tiny_module(
    *, backbone=None, lora: int | None = 4, losses=None, seed: int = 0, family: str = "flux.1", **arguments
) -> OneStepSR:
    """A complete small FluxSR: pixel latents, FTD, MSE + TV-LPIPS + ADL + a latent term."""
    torch.manual_seed(seed)
    if backbone is None:
        backbone = FluxBackbone.from_transformer(tiny_transformer(family=family, in_channels=48))
    if lora is not None:
        backbone.add_lora(rank=lora)
    if losses is None:
        losses = {
            "mse": ImageTerm(MSELoss()),
            "tv_lpips": ImageTerm(TVLPIPSLoss(net="nano"), weight=0.1),
            "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.01),
            "latent": LatentTerm(torch.nn.L1Loss(), weight=0.1),
        }
    arguments.setdefault("objective", FlowTrajectoryDistillation(0.25))
    arguments.setdefault("optimizer", lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    arguments.setdefault("autoencoder", PixelAutoencoder(downsample=2))
    return OneStepSR(backbone=backbone, losses=losses, seed=seed, **arguments)


def tiny_batch(size: int = 2, side: int = 32, seed: int = 0, scale: int = 4) -> SRBatch:
    """Smooth random images with their reductions."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, 8, 8, generator=generator)
    hr_image = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    lr_image = torch.nn.functional.interpolate(hr_image, scale_factor=1 / scale, mode="area")
    return SRBatch(hr_image, lr_image, torch.arange(size))


def loader(batches: int, **arguments) -> DataLoader:
    """Batches of different seeds, as they are."""
    return DataLoader([tiny_batch(seed=i, **arguments) for i in range(batches)], batch_size=None)


def tiny_trainer(folder: Path | None = None, **arguments) -> Trainer:
    """A silent CPU trainer."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **arguments})


def run_script(name: str, devices: int, *arguments: Any, timeout: float | None = None) -> None:
    """Run a script of this folder in processes of its own, several by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"] if devices > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).with_name(name)), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)
    assert result.returncode == 0, result.stderr[-3000:]
