from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from fluxsr.data import SRBatch
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.losses import AttentionDiversificationLoss, MSELoss, TVLPIPSLoss
from fluxsr.models import FluxBackbone, PixelAutoencoder
from fluxsr.training import FeatureTerm, ImageTerm, LatentTerm, OneStepSR
from tests.models.conftest import tiny_transformer


def tiny_module(*, backbone=None, lora: int | None = 4, losses=None, seed: int = 0, **arguments) -> OneStepSR:
    """A complete small FluxSR: pixel latents, FTD, MSE + TV-LPIPS + ADL + a latent term."""
    torch.manual_seed(seed)
    if backbone is None:
        backbone = FluxBackbone.from_transformer(tiny_transformer(in_channels=48))
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


def tiny_batch(size: int = 2, side: int = 32, seed: int = 0) -> SRBatch:
    """Smooth random images with their x4 reductions."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, 8, 8, generator=generator)
    hr_image = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    lr_image = torch.nn.functional.interpolate(hr_image, scale_factor=0.25, mode="area")
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


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Four scikit-image photos of 128x128."""
    from PIL import Image
    from skimage import data

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()[100:228, 100:228]).save(folder / f"{name}.png")
    return folder
