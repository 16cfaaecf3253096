from __future__ import annotations

import pytest
import torch
from PIL import Image

from fluxsr.evaluation import System, open_folders
from fluxsr.images import write_image
from fluxsr.images.resize import imresize


@pytest.fixture(scope="session")
def photo() -> torch.Tensor:
    """A photo of scikit-image, ``(1, 3, 256, 256)``."""
    from skimage import data

    return torch.from_numpy(data.astronaut()[:256, 100:356].copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def folders(tmp_path, photo):
    """Three HR images of 48x40, LR images of a quarter, and a worse and a better system's results."""
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        hr_image = photo[0, :, 40 * number : 40 * number + 48, 60:100]
        noise = torch.randn(hr_image.shape, generator=generator)
        write = {"HR": hr_image, "better": hr_image + 0.02 * noise, "worse": hr_image + 0.1 * noise}
        write["LR"] = imresize(hr_image[None], (12, 10))[0]
        for folder, image in write.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{'cba'[number]}.png", image)
    return tmp_path


@pytest.fixture
def testset(folders):
    """Those images as a test set."""
    return open_folders(folders / "HR", folders / "LR")


@pytest.fixture
def counting():
    """A system that counts how often it restores."""

    def restore(lr_image, size):
        system.calls += 1
        return imresize(lr_image, size)

    system = System("counting", "here", "first", restore=restore)
    system.calls = 0
    return system


def save(path, size=(8, 8), color=0):
    """Write a small image of one color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, color, color)).save(path)
