"""Finding T_L, the time at which low-resolution latents stand on the noise-to-image path, from data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fluxsr.flows.objective import LatentPair
from fluxsr.flows.paths import check_finite, check_same_shape

LOWEST, HIGHEST = 0.02, 0.9


class LRTimeEstimate(NamedTuple):
    """A calibrated T_L.

    Attributes:
        lr_time: the estimate over all images, clamped to ``[0.02, 0.9]``.
        per_image: the same ratio for every image ``(N,)``, unclamped; its spread tells how much one number hides.
    """

    lr_time: float
    per_image: Tensor

    def __str__(self) -> str:
        """Say the estimate with its spread over images."""
        low, median, high = torch.quantile(self.per_image, torch.tensor([0.1, 0.5, 0.9])).tolist()
        return (
            f"lr_time = {self.lr_time:.4f} from {len(self.per_image)} images "
            f"(per image: 10 % {low:.4f}, median {median:.4f}, 90 % {high:.4f})"
        )


def calibrate_lr_time(pairs: Iterable[LatentPair]) -> LRTimeEstimate:
    """Estimate T_L as the share of the noise-to-HR path that equals the LR latents' distance from HR.

    ``T_L = rms(z_L - z_0) / rms(eps - z_0)``, clamped to ``[0.02, 0.9]``. Our default: the paper publishes no value.
    (The least-squares ``argmin_t || z_t - z_L ||`` is no alternative: LR latents are not noisy, so it collapses to 0.)

    Args:
        pairs: batches with ``hr``, ``lr`` and ``noise``.

    Raises:
        ValueError: if there is no batch, a member is missing or not finite, or LR equals HR everywhere.
    """
    to_lr: list[Tensor] = []
    to_noise: list[Tensor] = []
    for pair in pairs:
        if pair.lr is None or pair.noise is None:
            raise ValueError("calibration needs LatentPair.hr, .lr and .noise in every batch; one of them is None")
        check_same_shape(hr=pair.hr, lr=pair.lr, noise=pair.noise)
        check_finite(hr=pair.hr, lr=pair.lr, noise=pair.noise)
        hr = pair.hr.float()
        to_lr.append((pair.lr.float() - hr).square().flatten(1).mean(dim=1).cpu())
        to_noise.append((pair.noise.float() - hr).square().flatten(1).mean(dim=1).cpu())
    if not to_lr:
        raise ValueError("calibration got no batch; give at least one LatentPair")
    lr_power, noise_power = torch.cat(to_lr), torch.cat(to_noise)
    if not bool((lr_power > 0).any()):
        raise ValueError("lr equals hr in every image, so there is nothing to restore; check the degradation")
    ratio = float((lr_power.mean() / noise_power.mean()).sqrt())
    return LRTimeEstimate(min(max(ratio, LOWEST), HIGHEST), (lr_power / noise_power).sqrt())
