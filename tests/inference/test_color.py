import pytest
import torch

from fluxsr.inference.color import LEVELS, REACH, Moments, adain, lowpass, wavelet_rows


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
