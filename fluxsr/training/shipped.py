"""The one-step student that comes with the package, ready to restore."""

from __future__ import annotations

from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.models.files import read_safetensors
from fluxsr.models.flux import shipped_file
from fluxsr.training.module import OneStepSR


def nano_student(tile: int | None = 128) -> OneStepSR:
    """Return the shipped nano student: ``nano_student()(lr_image)`` upscales ``(B, 3, h, w)`` four times in one step.

    Args:
        tile: side in pixels of the tiles that larger images are restored in; ``None``: whole images.
    """
    _, metadata = read_safetensors(shipped_file("nano-student"))
    return OneStepSR(
        backbone=load_flux("nano-student", trainable="none"),
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=float(metadata["start_time"])),
        tile=tile,
    ).eval()
