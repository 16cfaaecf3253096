"""What all tests share: real photos where they are, and a generator of their own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from fluxsr.models.devices import check_torch

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Tiny tensors gain nothing from threads, and the tests run in two processes.
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real photos and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FLUXSR_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real photos and weights at {folder} (FLUXSR_ASSETS names another folder)")
    return folder


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
    from tests.models.conftest import tiny_prompt, tiny_transformer
    from tests.models.test_autoencoders import tiny_kl

    folder = tmp_path_factory.mktemp("pipeline")
    tiny_transformer(guidance_embeds=True).save_pretrained(folder / "transformer")
    tiny_kl().save_pretrained(folder / "vae")
    tiny_prompt().save(folder / "prompt.safetensors")
    return folder


@pytest.fixture(scope="session")
def pipeline2(tmp_path_factory) -> Path:
    """A tiny FLUX.2-klein-base in diffusers' layout: transformer/, vae/; beside them a prompt file with a negative one."""
    from tests.models.conftest import tiny_prompt, tiny_transformer
    from tests.models.test_flux2 import tiny_kl2

    folder = tmp_path_factory.mktemp("pipeline2")
    tiny_transformer(family="flux.2").save_pretrained(folder / "transformer")
    tiny_kl2().save_pretrained(folder / "vae")
    tiny_prompt(family="flux.2").save(folder / "prompt.safetensors")
    return folder


@pytest.fixture(scope="session")
def teacher():
    """The shipped teacher."""
    from fluxsr.models import load_flux

    return load_flux("nano", trainable="none")


@pytest.fixture(scope="session")
def pixel():
    """The shipped models' autoencoder."""
    from fluxsr.models import PixelAutoencoder

    return PixelAutoencoder()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that is installed."""
    api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items) -> None:
    """Leave out what the installed torch is too old for (``fluxsr.models.devices.check_torch`` refuses it)."""
    for item in items:
        for marker in item.iter_markers("torch"):
            try:
                check_torch(marker.args[0], "this test")
            except ValueError as error:
                item.add_marker(pytest.mark.skip(reason=str(error)))
