import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.images.convert import to_tensor
from fluxsr.inference.color import LEVELS, REACH, Moments, PixelRows, adain, lowpass, wavelet_rows


class Whole:
    def __init__(self, image):
        self.image = image

    def rows(self, top, bottom):
        return self.image[:, top:bottom]


def test_the_filter_reaches_as_far_as_it_says():
    center = REACH + 19
    side = 2 * center + 1
    point = torch.zeros(1, side, side)
    point[0, center, center] = 1
    spread = lowpass(point)[0]
    reached = spread.nonzero()
    assert reached.min() == center - REACH and reached.max() == center + REACH
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    # The variance of (1, 2, 1) / 4 with taps d apart is d^2 / 2, and variances add up.
    along = spread.sum(dim=0)
    variance = (along * (torch.arange(side) - center) ** 2).sum().item()
    assert variance == pytest.approx(sum(4**level / 2 for level in range(LEVELS)), rel=1e-4)


def test_wavelet_takes_low_frequencies_and_leaves_high(generator):
    width = 4 * REACH
    colors = torch.rand(3, 1, 1, generator=generator).expand(3, 40, width)
    detail = 0.1 * (torch.arange(width) % 2 - 0.5).expand(3, 40, width)
    restored = 0.2 + detail
    result = wavelet_rows(Whole(restored), Whole(colors), 0, 40, 40)
    inner = slice(REACH + 1, -REACH - 1)  # beyond the border the stripes stop
    torch.testing.assert_close(result[..., inner], (colors + detail)[..., inner])


def test_wavelet_rows_are_those_of_the_whole(generator):
    restored, enlarged = torch.rand(2, 3, 150, 30, generator=generator)
    whole = wavelet_rows(Whole(restored), Whole(enlarged), 0, 150, 150)
    parts = [wavelet_rows(Whole(restored), Whole(enlarged), top, top + 50, 150) for top in (0, 50, 100)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_moments_and_adain(generator):
    restored, enlarged = torch.rand(2, 3, 40, 30, generator=generator)
    enlarged = enlarged * 0.3 + torch.tensor([0.1, 0.3, 0.5])[:, None, None]
    moments = [Moments(), Moments()]
    for moment, image in zip(moments, (restored, enlarged), strict=True):
        for strip in image.split(7, dim=1):
            moment.add(strip)
    gain, shift = adain(*moments)
    fixed = restored * gain + shift
    torch.testing.assert_close(fixed.mean(dim=(1, 2)), enlarged.mean(dim=(1, 2)))
    torch.testing.assert_close(fixed.flatten(1).std(dim=1), enlarged.flatten(1).std(dim=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 2), (6, 5, 3), (6, 5, 4)])
def test_arrays_keep_dtype_and_layout(make, shape, dtype):
    values = np.random.default_rng(0).random(shape) * 0.9 + 0.1  # no alpha of 0, where colors change
    integer = np.issubdtype(dtype, np.integer)
    image = (values * np.iinfo(dtype).max).astype(dtype) if integer else values.astype(dtype)
    same, larger = make()(image, 1), make()(image, 2)
    assert same.dtype == larger.dtype == dtype
    assert larger.shape == (12, 10, *shape[2:])
    # Three times the same gray comes back as that gray, to the rounding of the luma weights.
    np.testing.assert_allclose(same.astype(float), image.astype(float), atol=0 if integer else 1e-3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pillow_keeps_mode_and_metadata(make, mode):
    image = Image.new(mode, (5, 6), 1 if mode == "I;16" else None)
    kept = {"dpi": (72, 72), "icc_profile": b"profile", "comment": "a seed and a prompt"}
    image.info = kept | {"duration": 40, "gamma": 0.45455}
    result = make()(image, 2)
    assert result.mode == mode and result.size == (10, 12)
    assert result.info == kept


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("PA", "RGBA")]
)
def test_other_modes_of_pillow_become_plain(make, mode, expected):
    image = Image.new("RGBA", (5, 6), (200, 100, 50, 255)).convert("RGB").convert(mode if mode != "PA" else "P")
    image = image.convert("PA") if mode == "PA" else image
    result = make()(image, 1)
    assert result.mode == expected
    if mode not in ("1", "P", "PA"):
        assert np.abs(np.asarray(result, int) - (200, 100, 50)).max() <= 3


def test_hidden_colors_do_not_bleed_into_visible_ones(make):
    # A white disc on black that nobody sees, as editors save it.
    y, x = np.mgrid[:40, :40]
    disc = ((x - 20) ** 2 + (y - 20) ** 2 < 100)[..., None]
    pixels = np.concatenate([np.repeat(disc, 3, axis=2) * 255, disc * 255], axis=2).astype(np.uint8)
    result = make()(pixels, 4)
    visible = result[..., 3] > 0
    assert result[..., :3][visible].min() == 255
    assert 0.9 < visible.mean() / disc.mean() < 1.3  # the edge of alpha itself is bicubic


def test_filled_rows_are_those_of_the_whole(generator):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 20, 4), np.uint8)
    pixels[..., 3] *= np.random.default_rng(1).random((100, 20)) > 0.9
    source = PixelRows(pixels)
    parts = [source.color(top, top + 25) for top in range(0, 100, 25)]
    torch.testing.assert_close(torch.cat(parts, dim=1), source.color(0, 100))
    visible = pixels[..., 3] > 0
    assert torch.equal(source.color(0, 100)[:, visible], to_tensor(pixels)[:3][:, visible])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 3, 6, 5), (1, 6, 5), (4, 6, 5)])
def test_tensors_keep_dtype_and_layout(make, shape, dtype, generator):
    values = torch.rand(shape, generator=generator)
    image = (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
    result = make()(image, 2)
    assert result.dtype == dtype and result.shape == (*shape[:-2], 12, 10) and result.is_contiguous()
    torch.testing.assert_close(make()(image, 1).float(), image.float(), atol=2e-3, rtol=0)
