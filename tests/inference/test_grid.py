"""The grid fix: it takes a grid away, leaves detail alone, and is the same in any tile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxsr.inference import Upscaler
from fluxsr.inference.grid import REACH, token_grid
from fluxsr.losses import patch_artefact_energy
from fluxsr.models import PixelAutoencoder

PERIOD = 8
SMALLEST = (2 * REACH + 1) * PERIOD
# Pixels whose average does not reach the tokens at the border, beside which an average over one period is cut off.
INNER = (..., slice((REACH + 1) * PERIOD, -(REACH + 1) * PERIOD), slice((REACH + 1) * PERIOD, -(REACH + 1) * PERIOD))


def pattern(height: int, width: int, generator: torch.Generator) -> Tensor:
    """The same 8x8 pixels again and again, of mean zero."""
    token = torch.randn(3, PERIOD, PERIOD, generator=generator)
    token -= token.mean(dim=(1, 2), keepdim=True)
    return token.repeat(1, height // PERIOD, width // PERIOD)


def test_what_repeats_with_the_tokens_is_the_grid(generator):
    grid = pattern(192, 176, generator)
    torch.testing.assert_close(token_grid(grid, PERIOD)[INNER], grid[INNER], atol=1e-5, rtol=0)


def test_slopes_and_levels_are_none():
    slope = torch.linspace(-1, 1, 192).expand(3, 192, 192) + 0.3
    assert float(token_grid(slope, PERIOD)[INNER].abs().max()) < 1e-5


def test_noise_stays(generator):
    noise = torch.randn(3, 272, 272, generator=generator)
    taken = token_grid(noise, PERIOD)
    # An average of 17 x 17 tokens has a 289th of the energy; at the borders of fewer.
    assert float(taken.square().mean()) < 2 / (2 * REACH + 1) ** 2


def test_its_mean_over_a_token_is_zero(generator):
    taken = token_grid(torch.randn(3, 64, 80, generator=generator), PERIOD)
    tokens = taken.view(3, 8, PERIOD, 10, PERIOD).mean(dim=(2, 4))
    assert float(tokens.abs().max()) < 1e-6


def gridded(xt: Tensor, t: Tensor) -> Tensor:
    """A velocity that adds a grid of 0.02 to the image and changes nothing else."""
    place = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(xt.shape[-2] // 2, xt.shape[-1] // 2)
    return (0.3 * place).expand_as(xt)


def upscaler(**options: object) -> Upscaler:
    return Upscaler(gridded, PixelAutoencoder(4), 0.25, color_fix="none", **options)  # type: ignore[arg-type]


@pytest.fixture
def photo() -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    small = torch.rand(1, 3, 12, 10, generator=generator) * 0.4 + 0.3
    return (torch.nn.functional.interpolate(small, (48, 40), mode="bicubic")[0].permute(1, 2, 0) * 255).byte().numpy()


def decibels(image: np.ndarray) -> float:
    return float(patch_artefact_energy(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, PERIOD))


def test_the_upscaler_removes_the_grid(photo):
    fixed, raw = upscaler()(photo, 4), upscaler(grid_fix=False)(photo, 4)
    clean = Upscaler(lambda xt, t: 0 * xt, PixelAutoencoder(4), 0.25, color_fix="none")(photo, 4)
    assert decibels(raw) > decibels(clean) + 6
    assert decibels(fixed) < decibels(clean) + 1
    assert np.abs(fixed.astype(int) - clean)[8:-8, 8:-8].max() <= 1


@pytest.mark.parametrize("size", [(192, 160), (160, 192), (151, 137), (137, 310)])
def test_any_tile_gives_the_same_picture(photo, size):
    whole = upscaler(window=64, tile=None)(photo, size=size)
    assert whole.shape[:2] == size
    for tile in (64, 128):
        assert np.abs(upscaler(window=64, tile=tile)(photo, size=size).astype(int) - whole).max() <= 1


def test_small_results_stay_as_they_are(photo):
    side = SMALLEST - 1
    assert np.array_equal(upscaler()(photo, size=(side, 300)), upscaler(grid_fix=False)(photo, size=(side, 300)))
    assert not np.array_equal(
        upscaler()(photo, size=(side + 1, 300)), upscaler(grid_fix=False)(photo, size=(side + 1, 300))
    )


def test_the_command_has_it(tmp_path):
    from PIL import Image

    from fluxsr.cli.main import main

    noise = np.random.default_rng(0).integers(0, 255, (36, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    outputs = []
    for number, option in enumerate(([], ["--no-grid_fix"])):
        output = tmp_path / f"out{number}.png"
        main(["upscale", str(tmp_path / "a.png"), "-o", str(output), *option])
        outputs.append(np.asarray(Image.open(output)))
    assert not np.array_equal(*outputs)
