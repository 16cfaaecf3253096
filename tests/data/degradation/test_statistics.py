"""Real-ESRGAN's degradation against its formulas, written out a second time on NumPy, SciPy and Pillow's JPEG.

Two pipelines that share no code and no random numbers degrade the same photo 2,000 times each; what they do must be the same
in distribution: how much noise and blur there is, how blocky it is, how bright, and how much the quantiles spread.
"""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, special, stats
from skimage import data

from fluxsr.data import RealESRGANDegradation, SecondStageRanges

CROPS, SIDE, SCALE = 2_000, 128, 4
KINDS = ("iso", "aniso", "generalized iso", "generalized aniso", "plateau iso", "plateau aniso")


# ---- the reference (Wang et al. 2021, arXiv 2107.10833, section 3, with the published options of RealESRGAN_x4plus) ----


def kernel(rng, sigmas) -> np.ndarray:
    size = rng.choice(np.arange(7, 22, 2))
    if rng.random() < 0.1:
        return sinc(size, rng.uniform(math.pi / (3 if size < 13 else 5), math.pi))
    kind = rng.choice(KINDS, p=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03))
    sx = sy = rng.uniform(*sigmas)
    angle = 0.0
    if "aniso" in kind:
        sy, angle = rng.uniform(*sigmas), rng.uniform(-math.pi, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([sx**2, sy**2]) @ turn.T)
    axis = np.arange(size) - size // 2
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    distance = np.einsum("...i,ij,...j", points, inverse, points)
    below = rng.random() < 0.5
    if "generalized" in kind:
        values = np.exp(-0.5 * distance ** (rng.uniform(0.5, 1) if below else rng.uniform(1, 4)))
    elif "plateau" in kind:
        values = 1 / (1 + distance ** (1.0 if below else rng.uniform(1, 2)))
    else:
        values = np.exp(-0.5 * distance)
    return values / values.sum()


def sinc(size, cutoff) -> np.ndarray:
    axis = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(axis, axis))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cutoff * special.j1(cutoff * radius) / (2 * math.pi * radius)
    values[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return values / values.sum()


def blurred(image, weights):
    return np.stack([ndimage.correlate(channel, weights, mode="mirror") for channel in image])


def resized(image, size, rng):
    mode = rng.choice(["area", "bilinear", "bicubic"])
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    align = {} if mode == "area" else {"align_corners": False}
    return torch.nn.functional.interpolate(tensor, size=size, mode=str(mode), **align)[0].numpy()


def factor(rng, probabilities, low, high):
    kind = rng.choice(3, p=probabilities)
    return rng.uniform(1, high) if kind == 0 else rng.uniform(low, 1) if kind == 1 else 1.0


def noisy(image, rng, sigma_high, scale_high):
    gaussian, gray = rng.random() < 0.5, rng.random() < 0.4
    if gaussian:
        noise = rng.normal(size=image.shape[1:] if gray else image.shape) * rng.uniform(1, sigma_high) / 255
    else:
        source = np.tensordot([0.299, 0.587, 0.114], image, 1)[None] if gray else image
        source = np.clip(np.round(source * 255), 0, 255) / 255
        photons = 2 ** math.ceil(math.log2(len(np.unique(source))))
        noise = (rng.poisson(source * photons) / photons - source) * rng.uniform(0.05, scale_high)
    return np.clip(image + noise, 0, 1)


def jpeg(image, rng):
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(30, 96)), subsampling="4:2:0")
    return np.asarray(Image.open(buffer), dtype=np.float64).transpose(2, 0, 1) / 255


def reference(image, rng) -> np.ndarray:
    side = SIDE // SCALE
    image = blurred(image, kernel(rng, (0.2, 3.0)))
    image = resized(image, (max(1, int(SIDE * factor(rng, (0.2, 0.7, 0.1), 0.15, 1.5))),) * 2, rng)
    image = jpeg(noisy(image, rng, 30, 3.0), rng)
    if rng.random() < 0.8:
        image = blurred(image, kernel(rng, (0.2, 1.5)))
    image = resized(image, (max(1, int(side * factor(rng, (0.3, 0.4, 0.3), 0.3, 1.2))),) * 2, rng)
    image = noisy(image, rng, 25, 2.5)
    last = sinc(rng.choice(np.arange(7, 22, 2)), rng.uniform(math.pi / 3, math.pi)) if rng.random() < 0.8 else None
    finish = lambda x: x if last is None else blurred(x, last)
    if rng.random() < 0.5:
        image = jpeg(finish(resized(image, (side, side), rng)), rng)
    else:
        image = finish(resized(jpeg(image, rng), (side, side), rng))
    return np.clip(np.round(image * 255), 0, 255) / 255


# ---- what is measured ----------------------------------------------------------------------------------------------


def statistics_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Per image ``(N, 3, h, w)``: noise, sharpness, blockiness, color noise, mean and distance from plain reduction."""
    gray = images.mean(axis=1)
    laplacian = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    filtered = ndimage.convolve(gray, laplacian[None], mode="mirror")
    steps = np.abs(np.diff(gray, axis=2)).mean(axis=1)  # (N, w - 1): between column i and i + 1
    border = np.arange(steps.shape[1]) % 8 == 7
    chroma = images - gray[:, None]
    return {
        "noise": math.sqrt(math.pi / 2) * np.abs(filtered).mean(axis=(1, 2)),
        "sharpness": np.abs(np.diff(gray, axis=1)).mean(axis=(1, 2)),
        "blockiness": steps[:, border].mean(axis=1) - steps[:, ~border].mean(axis=1),
        "color noise": np.abs(np.diff(chroma, axis=3)).mean(axis=(1, 2, 3)),
        "mean": images.mean(axis=(1, 2, 3)),
        "deviation": images.std(axis=(1, 2, 3)),
    }


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The statistics of 2,000 crops each, ours and the reference's."""
    photo = data.astronaut()[40 : 40 + SIDE, 180 : 180 + SIDE].transpose(2, 0, 1) / 255.0
    degrade = RealESRGANDegradation(SCALE)
    image = torch.from_numpy(photo).float()
    ours = np.stack([degrade(image, seeds=seed).numpy() for seed in range(CROPS)])
    rng = np.random.default_rng(0)
    theirs = np.stack([reference(photo, rng) for _ in range(CROPS)])
    assert ours.shape == theirs.shape == (CROPS, 3, SIDE // SCALE, SIDE // SCALE)
    return statistics_of(ours), statistics_of(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise", "sharpness", "blockiness", "color noise", "mean", "deviation"])
def test_the_same_in_distribution_as_the_formulas(both, name):
    ours, theirs = both[0][name], both[1][name]
    error = math.hypot(*(values.std() / math.sqrt(CROPS) for values in (ours, theirs)))
    assert abs(ours.mean() - theirs.mean()) < 3.3 * error  # both means' 99.9 % interval
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.slow
def test_the_statistics_would_notice_another_range(both):
    """They are sharp enough: a second noise of 3 in place of 25, or no second blur, is seen."""
    photo = data.astronaut()[40 : 40 + SIDE, 180 : 180 + SIDE].transpose(2, 0, 1) / 255.0
    image = torch.from_numpy(photo).float()
    for changed, name in (
        ({"second": SecondStageRanges(noise_range=(1.0, 3.0))}, "noise"),
        ({"second_blur_prob": 0.0}, "sharpness"),
    ):
        degrade = RealESRGANDegradation(SCALE, **changed)
        other = statistics_of(np.stack([degrade(image, seeds=seed).numpy() for seed in range(CROPS)]))[name]
        assert stats.ks_2samp(other, both[1][name]).pvalue < 1e-3
