import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from fluxsr.images.resize import Resized, bicubic_taps, imresize


def resized(image, size, **options):
    return Resized(lambda top, bottom: image[:, top:bottom], tuple(image.shape[1:]), size, **options)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 2.7, 4, 8])
@pytest.mark.parametrize("original", [(1, 1), (1, 50), (7, 13), (33, 52)])
def test_enlarging_is_torchs_bicubic(original, scale, generator):
    image = torch.rand(3, *original, generator=generator)
    size = tuple(max(1, round(side * scale)) for side in original)
    expected = interpolate(image[None], size=size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    torch.testing.assert_close(resized(image, size).rows(0, size[0]), expected, atol=2e-5, rtol=0)


def test_any_rows_are_those_of_the_whole(generator):
    image = torch.rand(2, 33, 20, generator=generator)
    source = resized(image, (101, 47))
    whole = source.rows(0, 101)
    for top, bottom in ((0, 1), (0, 30), (29, 77), (100, 101)):
        assert torch.equal(source.rows(top, bottom), whole[:, top:bottom])


def test_the_same_size_is_the_same_image(generator):
    image = torch.rand(3, 9, 14, generator=generator)
    assert torch.equal(resized(image, (9, 14)).rows(0, 9), image)


def test_padding_repeats_the_last_row_and_column(generator):
    image = torch.rand(3, 5, 6, generator=generator)
    padded = resized(image, (10, 12), padded=(16, 16)).rows(0, 16)
    whole = resized(image, (10, 12)).rows(0, 10)
    expected = torch.nn.functional.pad(whole[None], (0, 4, 0, 6), mode="replicate")[0]
    torch.testing.assert_close(padded, expected)


def test_shrinking_does_not_alias():
    # Stripes of one pixel, shrunk by 8: without a wider kernel they come out as black or white.
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)
    result = resized(stripes, (8, 8)).rows(0, 8)
    torch.testing.assert_close(result, torch.full_like(result, 0.5), atol=0.06, rtol=0)


@pytest.mark.parametrize(("length", "new_length"), [(1, 1), (1, 9), (5, 3), (100, 1), (7, 7), (3, 1000)])
def test_weights_sum_to_one_and_indices_stay_inside(length, new_length):
    index, weight = bicubic_taps(length, new_length, 0, new_length)
    assert index.min() >= 0 and index.max() < length
    torch.testing.assert_close(weight.sum(dim=0), torch.ones(new_length))


def by_hand(line: np.ndarray, new: int) -> np.ndarray:
    """MATLAB's imresize of one line, written out point by point."""
    scale = new / len(line)
    stretch = max(1.0, 1 / scale)

    def keys(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    mirrored = np.concatenate([np.arange(len(line)), np.arange(len(line))[::-1]])
    result = []
    for k in range(new):
        center = (k + 0.5) / scale - 0.5
        taps = range(int(np.floor(center - 2 * stretch)), int(np.ceil(center + 2 * stretch)) + 1)
        weights = np.array([keys((center - tap) / stretch) for tap in taps])
        values = line[mirrored[np.mod(list(taps), 2 * len(line))]]
        result.append((weights * values).sum() / weights.sum())
    return np.array(result)


@pytest.mark.parametrize("new", [6, 12, 17, 24, 31, 96])
def test_is_matlabs_along_both_axes(new, generator):
    image = torch.rand(1, 2, 24, 24, generator=generator, dtype=torch.float64)
    expected = np.apply_along_axis(by_hand, 1, np.apply_along_axis(by_hand, 0, image[0, 0].numpy(), new), new)
    np.testing.assert_allclose(imresize(image, (new, new))[0, 0].numpy(), expected, atol=1e-6)


def test_sides_are_independent_and_a_constant_stays(generator):
    image = torch.rand(2, 3, 9, 11, generator=generator)
    assert imresize(image, (9, 11)) is image
    assert imresize(image, (18, 11)).shape == (2, 3, 18, 11)
    torch.testing.assert_close(imresize(torch.full((1, 1, 7, 5), 0.3), (3, 20)), torch.full((1, 1, 3, 20), 0.3))
