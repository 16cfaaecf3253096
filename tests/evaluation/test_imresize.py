import numpy as np
import pytest
import torch

from fluxsr.images.resize import imresize


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
