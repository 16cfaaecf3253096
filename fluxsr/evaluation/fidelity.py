"""Measures fidelity: PSNR, SSIM in two forms, and whether a picture degraded again is its LR image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.images.resize import imresize, rounded
from fluxsr.losses.functional import luma

if TYPE_CHECKING:
    from fluxsr.evaluation.testset import Degrade

WINDOW, SIGMA = 11, 1.5
SSIM_SMALLEST = WINDOW // 2 + 1  # beyond a border no more can be mirrored
# Draws of a random degradation that a consistency is the mean over; numbered beyond any image of a test set.
DRAWS, FIRST_DRAW = 4, 1_000_000


def psnr(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return the PSNR in dB, of any channels in ``[0, 1]``, computed in double precision; infinite for equal images."""
    return -10 * (sr_image.double() - hr_image.double()).square().mean().log10()


def ssim(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return SSIM as torchmetrics has it, of any channels in ``[0, 1]``, in double precision: at most 1.

    A Gaussian window (11 pixels, sigma 1.5), and the image mirrored at its border.
    """
    border = (WINDOW // 2,) * 4
    x, y = (F.pad(image.double(), border, mode="reflect") for image in (sr_image, hr_image))
    means, structure = _similarities(x, y, 1.0)
    return (means * structure).clamp(max=1).mean()


def ssim_tables(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return SSIM as the tables of recent papers have it (those made with pyiqa), of RGB images in ``[0, 1]``.

    Three things differ from :func:`ssim` on the luma. The luma is rounded to whole levels. Only windows that lie inside the
    image count. Where structures oppose each other, their similarity is taken for 0.
    """
    x, y = ((luma(image.double()) * 255).round() for image in (sr_image, hr_image))
    means, structure = _similarities(x, y, 255.0)
    return (means * structure.clamp(min=0)).clamp(max=1).mean()


def _similarities(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Return the similarity of local means, and that of local deviations and structures, at every inner position."""
    # Products of differences from a common level: of bright areas nothing but rounding would be left else.
    level = (x.mean() + y.mean()) / 2
    u, v = x - level, y - level
    u_mean, v_mean, uu, vv, uv = map(_smooth, (u, v, u.square(), v.square(), u * v))
    x_mean, y_mean = u_mean + level, v_mean + level
    variances = (uu - u_mean.square()).clamp(min=0) + (vv - v_mean.square()).clamp(min=0)
    covariance = uv - u_mean * v_mean
    stabilizer, stabilizer2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    means = (2 * x_mean * y_mean + stabilizer) / (x_mean.square() + y_mean.square() + stabilizer)
    return means, (2 * covariance + stabilizer2) / (variances + stabilizer2)


def _smooth(values: Tensor) -> Tensor:
    """Return ``(..., H, W)`` under the Gaussian window, columns and then rows, as far as the window lies inside."""
    offsets = torch.arange(WINDOW, dtype=values.dtype) - WINDOW // 2
    line = torch.exp(-offsets.square() / (2 * SIGMA**2))
    for axis in (-2, -1):
        length = values.shape[axis] - WINDOW + 1
        # Sums of shifted copies: a convolution in double precision is several times slower.
        total = torch.zeros((), dtype=values.dtype, device=values.device)
        for index, weight in enumerate((line / line.sum()).tolist()):
            total = torch.add(total, values.narrow(axis, index, length), alpha=weight)
        values = total
    return values


def consistency(sr_image: Tensor, lr_image: Tensor, degrade: Degrade | None = None) -> tuple[Tensor, Tensor]:
    """Return the PSNR in dB between a picture degraded again and the LR image, and its spread: mean and deviation over draws.

    Without a reference it shows whether a picture is one that could have become the LR image; it says nothing of beauty.

    Args:
        sr_image: The picture, ``(1, 3, H, W)``.
        lr_image: The image that it was made of, ``(1, 3, h, w)``.
        degrade: The degradation; one that draws is applied in several draws, which are not the LR image's own. ``None``:
            MATLAB's bicubic shrinking to the LR image's size, for LR images without a known degradation.
    """
    if degrade is None:
        again = [imresize(sr_image.double(), (lr_image.shape[-2], lr_image.shape[-1]))]
    else:
        again = [degrade(sr_image, FIRST_DRAW + number) for number in range(2)]
        if torch.equal(*again):  # it draws nothing
            del again[1]
        else:
            again += [degrade(sr_image, FIRST_DRAW + number) for number in range(2, DRAWS)]
    values = torch.stack([psnr(rounded(one.double()), rounded(lr_image.double())) for one in again])
    return values.mean(), values.std() if len(values) > 1 else torch.zeros_like(values[0])
