import csv

import pytest
import torch

from fluxsr.images import read_image
from fluxsr.losses.functional import luma
from fluxsr.training import psnr_y


def test_luma_has_bt601_ends():
    ends = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)])
    torch.testing.assert_close(luma(ends).flatten() * 255, torch.tensor([16.0, 235.0]))


def test_luma_is_scikit_images(generator):
    from skimage.color import rgb2ycbcr

    image = torch.rand(1, 3, 9, 7, generator=generator, dtype=torch.float64)
    expected = rgb2ycbcr(image[0].permute(1, 2, 0).numpy())[..., 0] / 255
    torch.testing.assert_close(luma(image)[0, 0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_psnr_y_equals_the_formula_per_image(generator):
    a, b = torch.rand(2, 3, 3, 8, 8, generator=generator)
    expected = torch.stack(
        [-10 * (luma(x[None]) - luma(y[None])).square().mean().log10() for x, y in zip(a, b, strict=True)]
    )
    torch.testing.assert_close(psnr_y(a, b), expected.mean())


def test_psnr_y_reproduces_published_values(assets):
    """OSEDiff's stored outputs and its published per-image PSNR-Y."""
    folder = assets / "bench" / "realsr10"
    rows = list(csv.DictReader((folder / "osediff_metrics.csv").open()))
    assert len(rows) == 10
    for row in rows:
        restored, photo = (read_image(folder / kind / row["image"])[None] for kind in ("osediff", "HR"))
        assert float(psnr_y(restored, photo)) == pytest.approx(float(row["psnr_y"]), abs=1e-3)


def test_autocast_does_not_round_it():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 16, generator=generator)
    target = (image + 0.01 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = psnr_y(image, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, psnr_y(image, target))
