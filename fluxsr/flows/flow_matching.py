"""Implements flow matching, which trains the multi-step teacher that everything else is distilled from."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.flows.objective import Distance, FlowObjective, FlowOutput, LatentPair, Times, latent_mse
from fluxsr.flows.paths import linear_path, step_to_data, velocity_at
from fluxsr.flows.solvers import euler
from fluxsr.flows.timesteps import LogitNormalTimes, TimeSampler
from fluxsr.protocols import VelocityModel


class FlowMatching(FlowObjective):
    """Noise-to-image flow matching, ``E || v(xt, t) - (noise - hr) ||^2`` (FluxSR eq. 8).

    Args:
        time_sampler: The density of t; logit-normal by default, as in the training of FLUX's family
            (Esser et al. 2024).
        shift: FLUX's time shift of the sampling grid in :meth:`restore`; 1 is an even grid.

    Raises:
        ValueError: If ``shift`` is not positive.

    Example:
        >>> import torch
        >>> from fluxsr.flows import FlowMatching, LatentPair
        >>> hr, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
        >>> FlowMatching()(lambda xt, t: noise - hr, LatentPair(hr, noise=noise)).loss.item() < 1e-10
        True
    """

    def __init__(self, time_sampler: TimeSampler | None = None, shift: float = 1.0) -> None:
        super().__init__()
        if not shift > 0:
            raise ValueError(f"shift must be positive, got {shift}")
        self.time_sampler = time_sampler if time_sampler is not None else LogitNormalTimes()
        self.shift = shift

    @property
    def start_time(self) -> float:
        """Sampling starts at pure noise."""
        return 1.0

    @property
    def starts_from_noise(self) -> bool:
        """A teacher samples from noise."""
        return True

    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw times ``(batch_size,)`` from the sampler."""
        return self.time_sampler(batch_size, generator=generator)

    def restore(self, velocity: VelocityModel, start: Tensor, steps: int = 1) -> Tensor:
        """Sample: integrate from noise ``(B, C, h, w)`` at t = 1 to data at t = 0."""
        return euler(velocity, start, 1.0, 0.0, steps, shift=self.shift)

    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        times: Times | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the velocity's error and the estimate ``x0_hat = xt - t v``; needs ``pair.hr`` and ``pair.noise``.

        ``distance`` compares ``noise - v`` with ``hr``: a difference equal to the velocity's error, between two points
        of the data end's space.
        """
        hr, noise = pair.check("noise")
        t = self.times_for(pair, times, generator)
        xt = linear_path(hr, noise, t)
        v = velocity_at(velocity, xt, t)
        return FlowOutput(
            pair.distance_to_hr(distance, noise - v), x0_hat=step_to_data(xt, v, t), x0_target=hr, restoration_pass=0
        )
