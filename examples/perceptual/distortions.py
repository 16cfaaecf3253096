"""Distortions that super-resolution meets or makes, each ``(image, strength, rng) -> image``.

Images are float32 arrays ``(H, W, 3)`` in [0, 1]; ``strength`` in [0, 1] runs from barely visible to severe; ``rng``
is a ``numpy.random.Generator``. ``SEEN`` are used for training, ``UNSEEN`` only for measuring.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

Array = np.ndarray
Distortion = Callable[[Array, float, np.random.Generator], Array]


def _tensor(image: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _array(image: torch.Tensor) -> Array:
    return image[0].numpy().transpose(1, 2, 0)


def _log(strength: float, low: float, high: float) -> float:
    return float(low * (high / low) ** strength)


def _convolve(image: Array, kernel: Array) -> Array:
    pad = kernel.shape[0] // 2
    x = F.pad(_tensor(image), (pad,) * 4, mode="reflect").transpose(0, 1)
    weight = torch.from_numpy(kernel.astype(np.float32))[None, None]
    return _array(F.conv2d(x, weight).transpose(0, 1))


def _gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Array:
    radius = int(min(15, max(1, round(3 * max(sigma_x, sigma_y)))))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / sigma_x) ** 2 + (v / sigma_y) ** 2))
    return kernel / kernel.sum()


def gaussian_blur(image: Array, strength: float, rng: np.random.Generator) -> Array:
    sigma = _log(strength, 0.3, 4.5)
    return _convolve(image, _gaussian_kernel(sigma, sigma, 0.0))


def anisotropic_blur(image: Array, strength: float, rng: np.random.Generator) -> Array:
    sigma = _log(strength, 0.4, 4.5)
    return _convolve(image, _gaussian_kernel(sigma, sigma * rng.uniform(0.15, 0.6), rng.uniform(0, np.pi)))


def down_up(image: Array, strength: float, rng: np.random.Generator) -> Array:
    names = ("bicubic", "bilinear", "area", "nearest")
    scale = 1.2 + 5.8 * strength
    height, width = image.shape[:2]
    size = (max(2, round(height / scale)), max(2, round(width / scale)))

    def resize(x: torch.Tensor, size: tuple[int, int], mode: str, antialias: bool) -> torch.Tensor:
        smooth = mode in ("bicubic", "bilinear")
        return F.interpolate(
            x, size, mode=mode, antialias=antialias and smooth, align_corners=False if smooth else None
        )

    small = resize(_tensor(image), size, names[rng.integers(3)], bool(rng.random() < 0.8))
    return _array(resize(small, (height, width), names[rng.choice(4, p=(0.5, 0.3, 0.0, 0.2))], False))


def gaussian_noise(image: Array, strength: float, rng: np.random.Generator) -> Array:
    sigma = _log(strength, 0.005, 0.2)
    channels = 3 if rng.random() < 0.6 else 1
    noise = rng.standard_normal((*image.shape[:2], channels)).astype(np.float32)
    if rng.random() < 0.3:  # denoisers and resizing leave noise that is correlated over pixels
        blurred = _convolve(np.repeat(noise, 3 // channels, axis=2), _gaussian_kernel(0.8, 0.8, 0.0))
        noise = blurred / max(1e-6, float(blurred.std()))
    return image + sigma * noise


def poisson_noise(image: Array, strength: float, rng: np.random.Generator) -> Array:
    photons = _log(1 - strength, 15.0, 6000.0)
    return (rng.poisson(np.clip(image, 0, 1) * photons) / photons).astype(np.float32)


def jpeg(image: Array, strength: float, rng: np.random.Generator) -> Array:
    buffer = io.BytesIO()
    quality = round(_log(1 - strength, 6.0, 96.0))
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=int(rng.choice((0, 2))))
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255


def sharpen(image: Array, strength: float, rng: np.random.Generator) -> Array:
    sigma = rng.uniform(0.6, 2.5)
    return image + _log(strength, 0.15, 4.0) * (image - _convolve(image, _gaussian_kernel(sigma, sigma, 0.0)))


def ringing(image: Array, strength: float, rng: np.random.Generator) -> Array:
    # A hard low-pass in frequency: what a sinc filter leaves.
    spectrum = np.fft.rfft2(image, axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    cut = _log(1 - strength, 0.07, 0.6)
    return np.fft.irfft2(spectrum * (frequency <= cut)[..., None], s=image.shape[:2], axes=(0, 1)).astype(np.float32)


def grid(image: Array, strength: float, rng: np.random.Generator) -> Array:
    # The artefact of patch-wise generators: a pattern that repeats every 2 to 16 pixels.
    period = int(rng.choice((2, 4, 8, 16)))
    color = 3 if rng.random() < 0.4 else 1
    if rng.random() < 0.5:
        tile = rng.standard_normal((period, period, color))
    else:
        y, x = np.mgrid[:period, :period]
        tile = ((y == 0) | (x == 0)).astype(float)[..., None] * rng.choice((-1.0, 1.0), color)
    tile = tile / max(1e-6, float(np.sqrt((tile**2).mean())))
    repeats = (-(-image.shape[0] // period), -(-image.shape[1] // period), 1)
    pattern = np.tile(tile, repeats)[: image.shape[0], : image.shape[1]]
    if rng.random() < 0.5:  # stronger where there is texture, as in real outputs
        detail = np.abs(image - _convolve(image, _gaussian_kernel(1.5, 1.5, 0.0))).mean(axis=2, keepdims=True)
        pattern = pattern * (0.3 + detail / max(1e-3, float(detail.mean())))
    return (image + _log(strength, 0.004, 0.12) * pattern).astype(np.float32)


def color_shift(image: Array, strength: float, rng: np.random.Generator) -> Array:
    return (image + _log(strength, 0.01, 0.25) * rng.uniform(-1, 1, 3)).astype(np.float32)


def tone(image: Array, strength: float, rng: np.random.Generator) -> Array:
    amount = _log(strength, 0.03, 0.8) * rng.choice((-1.0, 1.0))
    if rng.random() < 0.5:
        return np.clip(image, 0, 1) ** float(np.exp(amount))
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + (image - mean) * float(np.exp(amount))


def saturation(image: Array, strength: float, rng: np.random.Generator) -> Array:
    gray = image.mean(axis=2, keepdims=True)
    return gray + (image - gray) * float(np.exp(_log(strength, 0.05, 2.0) * rng.choice((-1.0, 0.6))))


def shift(image: Array, strength: float, rng: np.random.Generator) -> Array:
    distance, angle = _log(strength, 0.15, 3.0), rng.uniform(0, 2 * np.pi)
    theta = torch.eye(2, 3)[None].clone()
    theta[0, 0, 2] = 2 * distance * np.cos(angle) / image.shape[1]
    theta[0, 1, 2] = 2 * distance * np.sin(angle) / image.shape[0]
    x = _tensor(image)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    return _array(F.grid_sample(x, where, mode="bicubic", padding_mode="reflection", align_corners=False))


def random_network(image: Array, strength: float, rng: np.random.Generator) -> Array:
    # What an untrained or half-trained generator adds: structured, image-dependent, colored.
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    x = _tensor(image)
    hidden = F.conv2d(x - 0.5, torch.randn(12, 3, 3, 3, generator=seed) / 5, padding=1)
    step = int(rng.choice((1, 1, 2, 4)))
    hidden = F.relu(F.conv2d(F.relu(hidden), torch.randn(12, 12, 3, 3, generator=seed) / 8, padding=1, stride=step))
    hidden = F.interpolate(hidden, x.shape[-2:], mode="nearest" if rng.random() < 0.5 else "bilinear")
    out = F.conv2d(hidden, torch.randn(3, 12, 3, 3, generator=seed) / 8, padding=1)
    out = (out - out.mean()) / out.std().clamp(min=1e-6)
    return image + _log(strength, 0.01, 0.2) * _array(out)


def invented_detail(image: Array, strength: float, rng: np.random.Generator) -> Array:
    # Fine structure of another place instead of the true one: plausible, wrong.
    sigma = rng.uniform(0.8, 2.5)
    base = _convolve(image, _gaussian_kernel(sigma, sigma, 0.0))
    detail = image - base
    moved = np.roll(detail, (int(rng.integers(4, 28)), int(rng.integers(4, 28))), axis=(0, 1))
    amount = 0.1 + 0.9 * strength
    return (
        base
        + (1 - amount) * detail
        + amount * rng.uniform(0.5, 1.3) * (moved[:, ::-1] if rng.random() < 0.5 else moved)
    )


def average(image: Array, strength: float, rng: np.random.Generator) -> Array:
    # What a squared error prefers: the mean of shifted versions.
    return 0.5 * (shift(image, strength, rng) + shift(image, strength, rng))


SEEN: dict[str, Distortion] = {
    f.__name__: f
    for f in (
        gaussian_blur, anisotropic_blur, down_up, gaussian_noise, poisson_noise, jpeg, sharpen, ringing, grid,
        color_shift, tone, saturation, shift, random_network, invented_detail, average,
    )
}  # fmt: skip


def motion_blur(image: Array, strength: float, rng: np.random.Generator) -> Array:
    length, angle = _log(strength, 1.5, 15.0), rng.uniform(0, np.pi)
    kernel = np.zeros((17, 17))
    for step in np.linspace(-length / 2, length / 2, 64):
        kernel[round(8 + step * np.sin(angle)), round(8 + step * np.cos(angle))] += 1
    return _convolve(image, kernel / kernel.sum())


def salt_and_pepper(image: Array, strength: float, rng: np.random.Generator) -> Array:
    hit = rng.random((*image.shape[:2], 1)) < _log(strength, 0.002, 0.2)
    return np.where(hit, rng.integers(0, 2, (*image.shape[:2], 1)), image).astype(np.float32)


def posterize(image: Array, strength: float, rng: np.random.Generator) -> Array:
    levels = _log(1 - strength, 3.0, 40.0)
    return np.round(image * levels) / np.float32(levels)


def elastic_warp(image: Array, strength: float, rng: np.random.Generator) -> Array:
    x = _tensor(image)
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    field = F.interpolate(torch.randn(1, 2, 5, 5, generator=seed), x.shape[-2:], mode="bicubic", align_corners=True)
    where = F.affine_grid(torch.eye(2, 3)[None], list(x.shape), align_corners=False)
    where = where + field.permute(0, 2, 3, 1) * 2 * _log(strength, 0.2, 4.0) / x.shape[-1]
    return _array(F.grid_sample(x, where, mode="bicubic", padding_mode="reflection", align_corners=False))


def median(image: Array, strength: float, rng: np.random.Generator) -> Array:
    side = 2 * round(1 + 3 * strength) + 1
    x = F.pad(_tensor(image), (side // 2,) * 4, mode="reflect")
    return _array(F.unfold(x, side).view(1, 3, side * side, -1).median(dim=2).values.view(1, 3, *image.shape[:2]))


def multiplicative_noise(image: Array, strength: float, rng: np.random.Generator) -> Array:
    factor = 1 + _log(strength, 0.02, 0.6) * rng.standard_normal((*image.shape[:2], 1))
    return (image * factor).astype(np.float32)


UNSEEN: dict[str, Distortion] = {
    f.__name__: f for f in (motion_blur, salt_and_pepper, posterize, elastic_warp, median, multiplicative_noise)
}


def distort(image: Array, rng: np.random.Generator, *, kind: str | None = None, strength: float | None = None) -> Array:
    """One to three seen distortions in a row, clipped to [0, 1]; a given ``kind`` comes first or alone."""
    names = list(SEEN)
    chain = [kind or names[rng.integers(len(names))]]
    while kind is None and len(chain) < 3 and rng.random() < 0.35:
        chain.append(names[rng.integers(len(names))])
    for name in chain:
        amount = float(rng.random()) if strength is None else strength
        image = np.clip(SEEN[name](image, amount, rng), 0, 1).astype(np.float32)
    return image
