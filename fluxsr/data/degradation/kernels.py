r"""Makes the blur kernels of blind super-resolution (Real-ESRGAN, Wang et al. 2021, arXiv 2107.10833, 3.2 and 3.4).

Every function returns a `(size, size)` float32 kernel whose entries sum to 1. `size` is odd and in pixels, `sigma` in
pixels, `rotation` in radians. With the pixel's offset x from the center and the covariance
Sigma = R diag(sigma_x^2, sigma_y^2) R^T, the squared distance is d = x^T Sigma^-1 x.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def gaussian_kernel(size: int, sigma: tuple[float, float], rotation: float = 0.0) -> Tensor:
    """Gaussian blur, `exp(-d / 2)` (paper eq. 2); isotropic when both sigmas are equal."""
    return _normalized(torch.exp(-0.5 * _squared_distance(size, sigma, rotation)))


def generalized_gaussian_kernel(size: int, sigma: tuple[float, float], rotation: float, beta: float) -> Tensor:
    """Generalized Gaussian blur, `exp(-d**beta / 2)` (paper section 3.2); a Gaussian for `beta=1`."""
    return _normalized(torch.exp(-0.5 * _squared_distance(size, sigma, rotation) ** beta))


def plateau_kernel(size: int, sigma: tuple[float, float], rotation: float, beta: float) -> Tensor:
    """Plateau-shaped blur, `1 / (1 + d**beta)` (paper section 3.2)."""
    return _normalized(1.0 / (1.0 + _squared_distance(size, sigma, rotation) ** beta))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Circular ideal low-pass filter, `cutoff J1(cutoff r) / (2 pi r)` (paper eq. 6): it makes ringing.

    `cutoff` is the highest frequency kept, in radians per pixel, in (0, pi]. At r = 0 the limit `cutoff**2 / (4 pi)`
    holds.
    """
    if not 0.0 < cutoff <= math.pi + 1e-9:
        raise ValueError(f"cutoff must lie in (0, pi] radians per pixel, got {cutoff}")
    grid = _offsets(size)
    radius = grid.square().sum(-1).sqrt()
    center = size // 2
    radius[center, center] = 1.0  # any number: the center is overwritten below
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2.0 * math.pi * radius)
    kernel[center, center] = cutoff**2 / (4.0 * math.pi)
    return _normalized(kernel)


@lru_cache(maxsize=32)
def _offsets(size: int) -> Tensor:
    """Offsets (x, y) of each pixel from the center, `(size, size, 2)` float64; shared, so don't write to it."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the kernel size must be odd and positive, got {size}")
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([columns, rows], dim=-1)


def _squared_distance(size: int, sigma: tuple[float, float], rotation: float) -> Tensor:
    sigma_x, sigma_y = sigma
    if sigma_x <= 0 or sigma_y <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    x, y = _offsets(size).unbind(-1)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    # Coordinates along the ellipse's own axes, R^T x.
    along, across = cosine * x + sine * y, cosine * y - sine * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalized(kernel: Tensor) -> Tensor:
    return (kernel / kernel.sum()).float()
