"""The one-step student that comes with the package, ready to restore."""

from __future__ import annotations

from pathlib import Path

from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.models.files import read_safetensors
from fluxsr.models.flux import shipped_file
from fluxsr.training.module import OneStepSR


def nano_student(path: str | Path | None = None, tile: int | None = 128) -> OneStepSR:
    """Return the shipped nano student: ``nano_student()(lr_image)`` upscales ``(B, 3, h, w)`` four times in one step.

    Args:
        path: a student of your own that ``ExportBackbone`` wrote; ``None``: the shipped one.
        tile: side in pixels of the tiles that larger images are restored in; ``None``: whole images.
    """
    file = shipped_file("nano-student") if path is None else Path(path)
    _, metadata = read_safetensors(file)
    return OneStepSR(
        backbone=load_flux(str(file), trainable="none"),
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=float(metadata["start_time"])),
        tile=tile,
    ).eval()
