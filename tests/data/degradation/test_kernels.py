import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import j1

from fluxsr.data.degradation.kernels import gaussian_kernel, generalized_gaussian_kernel, plateau_kernel, sinc_kernel

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (7, 13, 21)
SIGMA, ROTATION = (2.3, 0.8), 0.7


def reference(size: int, kind: str, sigma: tuple[float, float], rotation: float, beta: float) -> NDArray[np.float64]:
    """The paper's formulas with an explicit covariance matrix, pixel by pixel."""
    turn = np.array([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    inverse = np.linalg.inv(turn @ np.diag([sigma[0] ** 2, sigma[1] ** 2]) @ turn.T)
    kernel = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            offset = np.array([column - size // 2, row - size // 2], dtype=np.float64)
            distance = float(offset @ inverse @ offset)
            if kind == "plateau":
                kernel[row, column] = 1 / (1 + distance**beta)
            else:
                kernel[row, column] = math.exp(-0.5 * distance**beta)
    return kernel / kernel.sum()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("sigma", "rotation"), [((1.4, 1.4), 0.0), (SIGMA, ROTATION), ((0.2, 3.0), -2.5)])
def test_kernels_equal_the_formulas(size: int, sigma: tuple[float, float], rotation: float) -> None:
    cases = [
        (gaussian_kernel(size, sigma, rotation), reference(size, "gaussian", sigma, rotation, 1.0)),
        (generalized_gaussian_kernel(size, sigma, rotation, 0.6), reference(size, "gaussian", sigma, rotation, 0.6)),
        (generalized_gaussian_kernel(size, sigma, rotation, 3.5), reference(size, "gaussian", sigma, rotation, 3.5)),
        (plateau_kernel(size, sigma, rotation, 1.7), reference(size, "plateau", sigma, rotation, 1.7)),
    ]
    for kernel, expected in cases:
        np.testing.assert_allclose(kernel.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.3, math.pi])
def test_sinc_equals_the_formula(size: int, cutoff: float) -> None:
    rows, columns = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(rows, columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = cutoff * j1(cutoff * radius) / (2 * np.pi * radius)
    expected[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    np.testing.assert_allclose(sinc_kernel(size, cutoff).numpy(), expected / expected.sum(), atol=1e-6)


def test_sums_and_symmetry() -> None:
    kernels = {
        "isotropic": gaussian_kernel(15, (1.5, 1.5)),
        "anisotropic": gaussian_kernel(15, SIGMA, ROTATION),
        "generalized": generalized_gaussian_kernel(15, SIGMA, ROTATION, 0.7),
        "plateau": plateau_kernel(15, SIGMA, ROTATION, 1.5),
        "sinc": sinc_kernel(15, 1.0),
    }
    for name, kernel in kernels.items():
        assert kernel.dtype == torch.float32, name
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5), name
        torch.testing.assert_close(kernel, kernel.flip(0, 1), msg=name)
    for name in ("isotropic", "sinc"):
        torch.testing.assert_close(kernels[name], kernels[name].T)
        torch.testing.assert_close(kernels[name], kernels[name].flip(0))


def test_sinc_passes_low_and_stops_high_frequencies() -> None:
    cutoff = math.pi / 2
    response = torch.fft.rfft2(sinc_kernel(21, cutoff), s=(64, 64)).abs()[0]
    frequency = torch.arange(33) * 2 * math.pi / 64
    assert float(response[frequency < 0.6 * cutoff].min()) > 0.85
    assert float(response[frequency > 1.4 * cutoff].max()) < 0.15


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: gaussian_kernel(8, (1.0, 1.0)), "got 8"),
        (lambda: gaussian_kernel(7, (1.0, 0.0)), "sigma"),
        (lambda: sinc_kernel(7, 3.5), "cutoff"),
    ],
)
def test_what_makes_no_kernel_is_named(make, named) -> None:
    with pytest.raises(ValueError, match=named):
        make()
