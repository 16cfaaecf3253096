from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxsr.models import PixelAutoencoder, load_flux
from tests.models.conftest import tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Four scikit-image photos of 128x128."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()[100:228, 100:228]).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Path:
    """A tiny FLUX.1-dev in diffusers' layout: transformer/ with guidance, vae/; beside them a prompt file."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_transformer(guidance_embeds=True).save_pretrained(folder / "transformer")
    tiny_kl().save_pretrained(folder / "vae")
    tiny_prompt().save(folder / "prompt.safetensors")
    return folder


@pytest.fixture(scope="session")
def teacher():
    """The shipped teacher."""
    return load_flux("nano", trainable="none")


@pytest.fixture(scope="session")
def pixel() -> PixelAutoencoder:
    """The shipped models' autoencoder."""
    return PixelAutoencoder()


def fresh_process_modules(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter; returns the names of what it loaded."""
    import subprocess
    import sys

    code = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files too."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def euler_by_hand(velocity, x: torch.Tensor, steps: int) -> torch.Tensor:
    """From noise at t = 1 to data at t = 0 on an even grid, written out."""
    with torch.no_grad():
        for k in range(steps, 0, -1):
            x = x - velocity(x, torch.full((len(x),), k / steps)) / steps
    return x
