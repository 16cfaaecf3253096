"""Seeded images, real backbones where they are, and LPIPS networks with random weights that need no download."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def backbones(assets: Path) -> Path:
    folder = assets / "backbones"
    if not folder.is_dir():
        pytest.skip(f"needs the ImageNet backbones at {folder}")
    return folder


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Two similar images in [0, 1], ``(2, 3, 40, 48)``."""
    generator = torch.Generator().manual_seed(0)
    hr_image = torch.rand(2, 3, 40, 48, generator=generator)
    noise = torch.randn(hr_image.shape, generator=generator)
    return (hr_image + 0.2 * noise).clamp(0, 1), hr_image


@pytest.fixture(scope="session")
def random_lpips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """``name -> (the package's LPIPS with random convolutions, a file with the same under torchvision's names)``."""
    import lpips

    made: dict[str, tuple[nn.Module, Path]] = {}

    def make(name: str) -> tuple[nn.Module, Path]:
        if name not in made:
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                net = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
            state = {"features." + key.split(".", 1)[1]: value for key, value in net.net.state_dict().items()}
            path = tmp_path_factory.mktemp("weights") / f"{name}.pth"
            torch.save(state, path)
            made[name] = (net, path)
        return made[name]

    return make
