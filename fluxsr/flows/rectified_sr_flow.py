"""Implements FlowSR's first stage: a rectified flow whose two ends are the low- and the high-resolution image."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fluxsr.flows.objective import Distance, FlowObjective, FlowOutput, LatentPair, Times, latent_mse
from fluxsr.flows.paths import linear_path, step_to_data, velocity_at
from fluxsr.flows.solvers import euler
from fluxsr.flows.timesteps import TimeSampler, UniformTimes
from fluxsr.protocols import VelocityModel


class RectifiedSRFlow(FlowObjective):
    """Rectified flow from LR to HR, without any noise (FlowSR, arXiv 2605.12377, stage 1).

    The path has the LR latents at t = 1 and the HR latents at t = 0. The loss measures the one-step estimate of the HR
    end with the ``distance`` of the call, and, where asked for, the velocity itself::

        z_t = (1-t) z_H + t z_L                          target velocity z_L - z_H
        f   = z_t - t v(z_t, t)                          the estimate of z_H
        L   = w_d d(f, z_H) + w_v || v - (z_L - z_H) ||^2

    With a distance of decoded images (l2 + LPIPS) the first term is the paper's stage 1, whose form we infer from its
    description. The second alone is plain rectified flow, and cheap, since nothing is decoded. The restoration goes from LR to
    HR in one Euler step, ``z_L - v(z_L, 1)``, or in several.

    Args:
        distance_weight: w_d; 1 is our default.
        velocity_weight: w_v; 0 is our default.
        time_sampler: Density of the times; uniform by default (ours: the paper publishes none).

    Raises:
        ValueError: If a weight is negative, or both are zero.

    Example:
        >>> import torch
        >>> from fluxsr.flows import LatentPair, RectifiedSRFlow
        >>> hr, lr = torch.randn(2, 2, 4, 8, 8)
        >>> objective = RectifiedSRFlow(velocity_weight=1.0)
        >>> oracle = lambda xt, t: lr - hr
        >>> objective(oracle, LatentPair(hr, lr)).loss.item() < 1e-10
        True
        >>> torch.allclose(objective.restore(oracle, lr, steps=3), hr, atol=1e-5)
        True
    """

    def __init__(
        self,
        distance_weight: float = 1.0,
        velocity_weight: float = 0.0,
        time_sampler: TimeSampler | None = None,
    ) -> None:
        super().__init__()
        if min(distance_weight, velocity_weight) < 0 or distance_weight == velocity_weight == 0:
            raise ValueError(
                f"distance_weight={distance_weight} and velocity_weight={velocity_weight}: none is negative, and one positive"
            )
        self.distance_weight = distance_weight
        self.velocity_weight = velocity_weight
        self.time_sampler = time_sampler if time_sampler is not None else UniformTimes()

    @property
    def start_time(self) -> float:
        """Restoration starts at the LR end."""
        return 1.0

    def extra_repr(self) -> str:
        """Show the weights."""
        return f"distance_weight={self.distance_weight}, velocity_weight={self.velocity_weight}"

    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> Times:
        """Draw times ``(batch_size,)`` in ``[0, 1]``."""
        return self.time_sampler(batch_size, generator=generator)

    def time_grid(self) -> Tensor | None:
        """Return the grid of ``time_sampler`` with the LR end's time; ``None`` without a grid."""
        grid = self.time_sampler.grid()
        return None if grid is None else torch.cat([grid, torch.ones(1, device="cpu")]).unique()

    def restore(self, velocity: VelocityModel, start: Tensor, steps: int = 1) -> Tensor:
        """Return ``z_L - v(z_L, 1)``, or that stretch in several Euler steps."""
        return euler(velocity, start, 1.0, 0.0, steps)

    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        times: Times | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the loss and the one-step estimates from everywhere on the path; needs ``hr`` and ``lr``."""
        hr, lr = pair.check("lr")
        t = self.times_for(pair, times, generator)
        xt = linear_path(hr, lr, t)
        v = velocity_at(velocity, xt, t)
        x0_hat = step_to_data(xt, v, t)
        return FlowOutput(self.flow_loss(v, x0_hat, pair, distance), x0_hat, hr, restoration_pass=0)

    def flow_loss(
        self, v: Tensor, x0_hat: Tensor, pair: LatentPair, distance: Distance, rows: Tensor | None = None
    ) -> Tensor:
        """Return the loss of velocities ``(b, C, h, w)`` and the estimates that they make, of these rows of the batch."""
        loss = torch.zeros((), device=v.device)
        if self.distance_weight:
            loss = loss + self.distance_weight * pair.distance_to_hr(distance, x0_hat, rows)
        if self.velocity_weight:
            wanted = cast(Tensor, pair.lr) - pair.hr
            loss = loss + self.velocity_weight * latent_mse(v, wanted if rows is None else wanted[rows])
        return loss
