"""Computes NIQE (Mittal, Soundararajan, Bovik 2013, "Making a 'Completely Blind' Image Quality Analyzer").

How far the statistics of an image's blocks are from those of pristine photos: no reference is needed, and lower is better.
The equations below are the paper's; block size, window and table are those of the authors' release.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.images.resize import imresize
from fluxsr.losses.weights import ENVIRONMENT_VARIABLE, WeightSource, find_weights

PRISTINE = WeightSource("NIQE's original parameters", ("niqe_pris_params.npz",))
BLOCK = 96  # pixels a side, at the first of the two scales
WINDOW, SIGMA = 7, 7 / 6
# In gray levels: far above what double precision rounds off, far below what one level of one pixel changes.
_ROUNDING = 1e-7
# Pairs of neighbors whose products are modeled: right, below, and both diagonals.
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


class Pristine(NamedTuple):
    """The multivariate Gaussian of pristine photos: ``mean`` ``(36,)`` and ``covariance`` ``(36, 36)``, float64."""

    mean: Tensor
    covariance: Tensor


def load_pristine(path: str | Path | None = None) -> Pristine:
    """Read ``niqe_pris_params.npz``: an explicit file or folder, or at any depth below ``FLUXSR_WEIGHTS``.

    Raises:
        FileNotFoundError: If it is in none of these places.
        ValueError: If the file holds something else.
    """
    found = find_weights(PRISTINE, path)
    if found is None:
        raise FileNotFoundError(
            f"{PRISTINE.title} not found: niqe needs {PRISTINE.patterns[0]} in the folder that {ENVIRONMENT_VARIABLE} names "
            "(it comes with BasicSR, made from the authors' release); or leave niqe out, or use pyiqa:niqe"
        )
    try:
        with np.load(found, allow_pickle=False) as content:
            mean, covariance = content["mu_pris_param"], content["cov_pris_param"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{found} doesn't hold mu_pris_param and cov_pris_param: replace it ({error})") from error
    return Pristine(torch.from_numpy(mean.ravel()).double(), torch.from_numpy(covariance).double())


def niqe(image: Tensor, pristine: Pristine) -> Tensor:
    """Return NIQE of each image.

    Args:
        image: ``(B, 3, H, W)`` in ``[0, 1]``, of two blocks of 96x96 pixels or more; what lies beyond whole blocks, right and
            below, is not seen.
        pristine: See :func:`load_pristine`.

    Returns:
        ``(B,)`` float64; about 3 for a good photo, above 10 for an odd one. On images of few blocks it says little.

    Raises:
        ValueError: If an image has fewer than two blocks that aren't flat, of which there would be no covariance.
    """
    rows, columns = image.shape[-2] // BLOCK, image.shape[-1] // BLOCK
    gray = _gray_levels(image)[..., : rows * BLOCK, : columns * BLOCK]
    features = []
    for block in (BLOCK, BLOCK // 2):
        features.append(_block_features(_normalized(gray), block))
        gray = imresize(gray, (gray.shape[-2] // 2, gray.shape[-1] // 2))
    return torch.stack([_distance(one, pristine) for one in torch.cat(features, dim=-1)])


def _gray_levels(image: Tensor) -> Tensor:
    """Return ``(B, 1, H, W)`` whole gray levels, as in the authors' code, which reads files of 8 bit.

    From whole numbers: a level exactly between two falls to the even one, wherever rounding would have left it.
    """
    levels = (image.double() * 255).round().long()
    thousandths = 299 * levels[:, 0:1] + 587 * levels[:, 1:2] + 114 * levels[:, 2:3]
    return (thousandths.double() / 1000).round()


def _normalized(gray: Tensor) -> Tensor:
    """Return the image less its local mean, over its local deviation (the paper's eq. 1 to 3)."""
    x = torch.arange(WINDOW, dtype=gray.dtype, device=gray.device) - WINDOW // 2
    line = torch.softmax(-x.square() / (2 * SIGMA**2), dim=0)

    def smooth(values: Tensor) -> Tensor:
        values = F.pad(values, (WINDOW // 2,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(values, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mean = smooth(gray)
    deviation = (smooth(gray.square()) - mean.square()).abs().sqrt()
    difference = gray - mean
    # Of a flat area nothing is left but rounding, whose signs would decide the shape of the distribution.
    difference = torch.where(difference.abs() > _ROUNDING, difference, 0.0)
    return difference / (deviation + 1)


def _block_features(normalized: Tensor, block: int) -> Tensor:
    """Return the 18 features of each block, ``(B, 1, H, W) -> (B, blocks, 18)``."""
    blocks = normalized.unfold(2, block, block).unfold(3, block, block).flatten(1, 3)
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        # Beyond a block's border its other side follows, as in the authors' code.
        shape, left, right = _asymmetric_gaussian(blocks * blocks.roll(shift, dims=(-2, -1)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()  # eq. 8
        features += [shape, mean, left, right]
    return torch.stack(features, dim=-1)


def _asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit shape, left and right scale of an asymmetric generalized Gaussian by moments; ``(..., h, w) -> (...)`` each."""
    dims = (-2, -1)
    squares = values.square()
    left = (squares * (values < 0)).sum(dims).div((values < 0).sum(dims)).sqrt()
    right = (squares * (values > 0)).sum(dims).div((values > 0).sum(dims)).sqrt()
    ratio = left / right
    moment = values.abs().mean(dims).square() / squares.mean(dims)
    moment = moment * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    table = torch.arange(200, 10001, dtype=torch.float64, device=values.device) / 1000
    moments = (2 * torch.lgamma(2 / table) - torch.lgamma(1 / table) - torch.lgamma(3 / table)).exp()
    shape = table[(moments - moment[..., None]).abs().argmin(dim=-1)]
    # A flat block has no sides: its moments are not numbers, and its features must not become some.
    shape = torch.where(moment.isnan(), moment, shape)
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left * scale, right * scale


def _distance(features: Tensor, pristine: Pristine) -> Tensor:
    """Return the distance of ``(blocks, 36)`` features from the pristine Gaussian (eq. 10), flat blocks left out."""
    whole = features[~features.isnan().any(dim=1)]
    if len(whole) < 2:
        raise ValueError("NIQE finds fewer than two blocks with any texture in this image")
    mean = features.nanmean(dim=0)
    covariance = torch.cov(whole.T)
    difference = pristine.mean.to(mean.device) - mean
    inverse = torch.linalg.pinv((pristine.covariance.to(mean.device) + covariance) / 2)
    return (difference @ inverse @ difference).sqrt()
