"""Computes how sure a mean is, and whether two systems differ: bootstrap intervals and a paired permutation test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

RESAMPLES = 10_000
_AT_A_TIME = 2**20  # numbers in memory
_EXACT = 12  # up to so many images all sign patterns are gone through: 4096


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean, over images; 10,000 resamples, seeded."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():  # the PSNR of an image that equals its reference
        return float(numbers.mean()), float(numbers.mean())
    generator = np.random.default_rng(0)
    draws = (generator.integers(numbers.size, size=(count, numbers.size)) for count in _portions(numbers.size))
    low, high = np.quantile(np.concatenate([numbers[draw].mean(axis=1) for draw in draws]), [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of "the two systems are alike", from the paired differences of the images.

    It is the share of sign patterns whose mean is at least as far from 0: of all up to 12 images, else of 10,000 random ones
    and the measured one.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    # Differences that are equal but for rounding must count as equal.
    measured = abs(numbers.mean()) * (1 - 1e-12)
    if numbers.size <= _EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=numbers.size)))
        return float((np.abs(signs @ numbers / numbers.size) >= measured).mean())
    generator = np.random.default_rng(0)
    draws = (generator.choice((-1.0, 1.0), size=(count, numbers.size)) for count in _portions(numbers.size))
    hits = sum(int((np.abs(signs @ numbers / numbers.size) >= measured).sum()) for signs in draws)
    return (hits + 1) / (RESAMPLES + 1)


def _portions(images: int) -> list[int]:
    """Return how many resamples are drawn at a time: of thousands of images all of them would take a gigabyte."""
    most = max(1, _AT_A_TIME // images)
    return [min(most, RESAMPLES - start) for start in range(0, RESAMPLES, most)]
