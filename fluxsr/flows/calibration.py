"""Estimates T_L, the time at which low-resolution latents lie on the noise-to-image path, from data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fluxsr.flows.objective import LatentPair

LOWEST, HIGHEST = 0.02, 0.9
Rule = Literal["norm", "snr"]
"""How T_L follows from how far the LR latents are from the HR latents: see :func:`calibrate_lr_time`."""


class LRTimeEstimate(NamedTuple):
    """A calibrated T_L.

    Attributes:
        lr_time: The estimate over all images, clamped to ``[0.02, 0.9]``.
        per_image: The same for every image ``(N,)``, unclamped; its spread shows how much one number hides.
        rule: Rule by which it was measured.
    """

    lr_time: float
    per_image: Tensor
    rule: Rule = "norm"

    def __str__(self) -> str:
        """Say the estimate with its spread over images."""
        low, median, high = torch.quantile(self.per_image, torch.tensor([0.1, 0.5, 0.9])).tolist()
        return (
            f"lr_time = {self.lr_time:.4f} by the rule {self.rule}, from {len(self.per_image)} images "
            f"(per image: 10 % {low:.4f}, median {median:.4f}, 90 % {high:.4f})"
        )


def calibrate_lr_time(pairs: Iterable[LatentPair], rule: Rule = "norm") -> LRTimeEstimate:
    """Estimate T_L from how far the LR latents are from the HR latents, clamped to ``[0.02, 0.9]``.

    Both rules are ours: the paper publishes neither a value nor how it was found.

    * ``norm``: the share of the noise-to-HR path that is as long, ``rms(z_L - z_0) / rms(eps - z_0)``. There the student has
      to put out a velocity about as strong as its teacher's.
    * ``snr``: the time whose noise is as strong beside the signal as the damage is: ``d / (1 + d)``, ``d = rms(z_L - z_0)``.
      At t the path holds ``t`` of unit noise to ``1 - t`` of the image.

    (The least-squares ``argmin_t || z_t - z_L ||`` is no alternative: LR latents are not noisy, so it collapses to 0.)

    Args:
        pairs: Batches with ``hr``, ``lr`` and ``noise``.
        rule: ``norm`` or ``snr``.

    Raises:
        ValueError: If there is no batch, a member is missing or not finite, LR equals HR everywhere, or for an unknown rule.
    """
    check_rule(rule)
    to_lr: list[Tensor] = []
    to_noise: list[Tensor] = []
    for pair in pairs:
        hr, lr, noise = (one.float() for one in pair.check("lr", "noise"))
        to_lr.append((lr - hr).square().flatten(1).mean(dim=1).cpu())
        to_noise.append((noise - hr).square().flatten(1).mean(dim=1).cpu())
    if not to_lr:
        raise ValueError("calibration got no batch; give at least one LatentPair")
    lr_power, noise_power = torch.cat(to_lr), torch.cat(to_noise)
    if not bool((lr_power > 0).any()):
        raise ValueError("lr equals hr in every image, so there is nothing to restore; check the degradation")
    everywhere = float(_time(lr_power.mean(), noise_power.mean(), rule))
    return LRTimeEstimate(min(max(everywhere, LOWEST), HIGHEST), _time(lr_power, noise_power, rule), rule)


def check_rule(rule: str) -> None:
    """Raise ValueError unless the rule is known."""
    if rule not in get_args(Rule):
        raise ValueError(f"the rule of T_L must be one of {', '.join(get_args(Rule))}, got {rule!r}")


def _time(lr_power: Tensor, noise_power: Tensor, rule: Rule) -> Tensor:
    distance = lr_power.sqrt()
    return distance / noise_power.sqrt() if rule == "norm" else distance / (1 + distance)
