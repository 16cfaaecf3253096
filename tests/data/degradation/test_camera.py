"""``CameraDegradation``: a lens' blur, a sensor's noise, a camera's sharpening."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fluxsr.data import BicubicDegradation, CameraDegradation
from fluxsr.demo import held_out_photo

STILL = {"noise_range": (0.0, 0.0), "jpeg_range": (100, 100)}


def test_an_image_of_a_batch_comes_out_as_it_would_alone():
    images = torch.rand(3, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    degradation = CameraDegradation()
    batch = degradation(images, seeds=[4, 5, 6])
    assert batch.shape == (3, 3, 12, 8)
    assert torch.equal(batch[1], degradation(images[1], seeds=5))
    assert not torch.equal(batch[1], degradation(images[1], seeds=6))
    assert torch.equal(batch * 255, (batch * 255).round())


@pytest.mark.parametrize("scale", [2, 4])
def test_a_gray_image_stays_gray(scale):
    gray = torch.full((3, 16, 16), 0.5)
    made = CameraDegradation(scale, noise_range=(0.0, 0.0))(gray, seeds=0)
    assert made.shape == (3, 16 // scale, 16 // scale)
    assert float((made - 0.5).abs().max()) <= 1 / 255


def test_it_is_blur_reduction_and_sharpening():
    # Without color, of which JPEG keeps a quarter.
    photo = held_out_photo("chelsea")[:, :64, :64].mean(0).expand(3, -1, -1)
    sigma, amount, radius = 2.0, 0.8, 1.0

    def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
        half = int(torch.tensor(3 * sigma).ceil())
        line = torch.exp(-torch.arange(-half, half + 1).double().square() / (2 * sigma**2))
        kernel = (line[:, None] * line / line.sum().square())[None, None]
        return F.conv2d(F.pad(image[:, None].double(), (half,) * 4, mode="reflect"), kernel)[:, 0]

    small = F.interpolate(blurred(photo, sigma)[None], size=(16, 16), mode="bicubic", antialias=True)[0].clamp(0, 1)
    expected = (small + amount * (small - blurred(small, radius))).clamp(0, 1)
    made = CameraDegradation(
        blur_sigma=(sigma, sigma), sharpen_amount=(amount, amount), sharpen_radius=(radius, radius), **STILL
    )(photo, seeds=0)
    # JPEG of quality 100 and 8 bits change less than one level on average.
    assert float((made - expected).abs().mean()) < 0.6 / 255


def test_sharpening_gives_back_contrast_and_not_detail():
    """What separates a camera's photo from a blurred one: more contrast in coarse structures, as little in the finest."""
    photo = held_out_photo("chelsea")[:, :256, :256]
    reduced = BicubicDegradation()(photo)

    def level(image: torch.Tensor, low: float, high: float) -> float:
        spectrum = torch.fft.fft2(image.mean(0)).abs().square()
        frequency = torch.fft.fftfreq(64).abs() * 2
        ring = (frequency[:, None].square() + frequency.square()).sqrt()
        return float(10 * spectrum[(ring > low) & (ring <= high)].mean().log10())

    change = {}
    for amount in (0.0, 1.2):
        made = CameraDegradation(blur_sigma=(2.5, 2.5), sharpen_amount=(amount, amount), **STILL)(photo, seeds=0)
        change[amount] = [level(made, *band) - level(reduced, *band) for band in ((0.2, 0.4), (0.8, 1.0))]
    assert change[1.2][0] > change[0.0][0] + 2
    assert change[1.2][1] < -3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": 0}, "scale must be a whole number"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be above 0"),
        ({"noise_range": (-1.0, 1.0)}, "noise_range must be at least 0"),
        ({"sharpen_amount": (-0.5, 1.0)}, "sharpen_amount must be at least 0"),
        ({"sharpen_radius": (2.0, 1.0)}, "sharpen_radius must be"),
        ({"jpeg_range": (90, 101)}, "jpeg_range must be at least 1 and at most 100"),
    ],
)
def test_a_range_that_makes_no_sense_is_named(options, match):
    with pytest.raises(ValueError, match=match):
        CameraDegradation(**options)
