"""Applies single steps of the degradation to one image `(3, H, W)` float32 in [0, 1], on the image's own device.

Noise is drawn from a CPU generator and then moved, pixel by pixel. So an image degraded on a GPU equals the one degraded
on a CPU, up to arithmetic and to the few roundings that it turns to the other side.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

RESIZE_MODES = ("area", "bilinear", "bicubic")
_UNIFORM_BITS = 31


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with a `(k, k)` kernel, k odd; borders are mirrored without repeating the edge pixel."""
    _, height, width = image.shape
    pad = kernel.shape[-1] // 2
    rows = _mirrored(height, pad, image.device)
    columns = _mirrored(width, pad, image.device)
    padded = image.index_select(1, rows).index_select(2, columns)
    # By Fourier transform: from 16x16 pixels on it is faster than the direct sum on a CPU (28 times for 64x64 and
    # k = 21, one thread), and no setting (TF32, autocast) makes it less exact, as it would a convolution.
    size = (_fast_length(height + 2 * pad), _fast_length(width + 2 * pad))
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel.to(image.device), s=size).conj()
    return torch.fft.irfft2(spectrum, s=size)[:, :height, :width]


def resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize to `size` (H, W) by "area", "bilinear" or "bicubic".

    The latter two don't antialias: so it is in Real-ESRGAN's published pipeline.
    """
    if image.shape[-2:] == size:
        return image
    align = None if mode == "area" else False
    return F.interpolate(image[None], size=size, mode=mode, align_corners=align)[0]


def add_gaussian_noise(image: Tensor, sigma: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (in 1/255), the same in all channels if `gray`; clamped."""
    channels = 1 if gray else image.shape[0]
    noise = torch.randn((channels, *image.shape[1:]), generator=generator)
    return (image + noise.to(image.device) * (sigma / 255.0)).clamp_(0.0, 1.0)


def add_poisson_noise(image: Tensor, strength: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add the shot noise of the image times `strength`, or, if `gray`, that of its luminance in all channels; clamped.

    As in Real-ESRGAN's code the image is rounded to 8 bit and a full-scale pixel counts `2 ** ceil(log2(levels))`
    photons on average, with `levels` the number of different values in the image.
    """
    source = _luminance(image) if gray else image
    levels = (source * 255.0).round_().clamp_(0.0, 255.0).long()
    photons = 2 ** math.ceil(math.log2(int(torch.bincount(levels.flatten(), minlength=256).count_nonzero())))
    # Inverse transform instead of torch.poisson: that one takes a varying number of draws per pixel, so a pixel that
    # rounds differently on another device would change the noise of all that follow.
    uniform = torch.randint(2**_UNIFORM_BITS, levels.shape, generator=generator).to(image.device)
    thresholds, offsets = (table.to(image.device) for table in _poisson_table(photons))
    counts = torch.searchsorted(thresholds, (levels << _UNIFORM_BITS) + uniform, right=True) + offsets[levels]
    noise = counts.float() / photons - levels.float() / 255.0
    return (image + noise * strength).clamp_(0.0, 1.0)


@lru_cache(maxsize=16)
def _poisson_table(photons: int) -> tuple[Tensor, Tensor]:
    """Quantiles of the Poisson laws of all 256 gray levels, for one search in one sorted list.

    Returns `thresholds`, where level l's cumulative probabilities (in units of 2**-31) stand raised by l * 2**31, and
    `offsets` (256,): position in the list + offset = photon count.
    """
    unit = 2**_UNIFORM_BITS
    thresholds, offsets, start = [], [], 0
    for level in range(256):
        rate = torch.tensor(level / 255.0 * photons, dtype=torch.float64)
        reach = 7.0 * math.sqrt(float(rate)) + 12.0  # beyond it lies less than 2**-31 of the probability
        first = max(0, math.floor(float(rate) - reach))
        counts = torch.arange(first, math.ceil(float(rate) + reach) + 1, dtype=torch.float64)
        cumulative = torch.special.gammaincc(counts + 1.0, rate) if level else torch.ones_like(counts)
        row = (cumulative * unit).round().long().clamp_(max=unit)
        row = row.cummax(0).values + level * unit
        thresholds.append(row)
        offsets.append(first - start)
        start += len(row)
    return torch.cat(thresholds), torch.tensor(offsets)


def _luminance(image: Tensor) -> Tensor:
    red, green, blue = image.unbind(0)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[None]


def _mirrored(length: int, pad: int, device: torch.device) -> Tensor:
    # Any pad works, also one longer than the image: a triangle wave of period 2 (length - 1).
    period = max(1, 2 * (length - 1))
    positions = torch.arange(-pad, length + pad, device=device).remainder(period)
    return torch.minimum(positions, period - positions).clamp_(max=length - 1)


@lru_cache(maxsize=512)
def _fast_length(length: int) -> int:
    """Smallest even length from `length` on with no prime factor above 5."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and length % 2 == 0:
            return length
        length += 1
