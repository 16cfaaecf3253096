"""Implements FluxSR's flow trajectory distillation: it turns the teacher's flow into one step from LR to HR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fluxsr.flows.calibration import Rule, check_rule
from fluxsr.flows.objective import Distance, FlowObjective, FlowOutput, LatentPair, Times, latent_mse
from fluxsr.flows.paths import check_same_shape, check_times, expand_times, mix, velocity_at
from fluxsr.flows.solvers import euler
from fluxsr.flows.timesteps import TimeSampler, UniformTimes
from fluxsr.protocols import VelocityModel


class FlowTrajectoryDistillation(FlowObjective):
    """Flow trajectory distillation, FTD (FluxSR, arXiv 2502.01993, eq. 14 to 18).

    The LR latents lie at the time ``lr_time`` (T_L) of the path from noise. The loss asks the velocity, anywhere on
    the noise-to-LR path, for the direction that takes LR to HR::

        z_t = (1-t)/(1-T_L) z_L + (t-T_L)/(1-T_L) eps            t ~ U[T_L, 1]      (eq. 16)
        L   = E || (u - T_L v(z_t, t)) - (eps - z_L) ||^2,  u = eps - z_0           (eq. 17)
            = E || (z_L - T_L v(z_t, t)) - z_0 ||^2                                 (the same, simplified)

    and the restoration is the one step ``x0_hat = z_L - T_L v(z_L, T_L)`` (eq. 18). The teacher is not needed in
    training: it is in the pairs ``(eps, z_0)``.

    Args:
        lr_time: T_L in (0, 1). The paper publishes no value; 0.25 is our default. With ``auto``
            :class:`fluxsr.training.OneStepSR` measures it on the data before anything else; in a loop of your own, set
            ``objective.lr_time = calibrate_lr_time(pairs).lr_time`` before the first step.
        time_sampler: Density of ``(t - T_L) / (1 - T_L)``; uniform as in the paper's algorithm 1.
        rule: Rule that measures T_L, ``norm`` or ``snr``: see :func:`fluxsr.flows.calibrate_lr_time`.

    Raises:
        ValueError: If ``lr_time`` lies outside (0, 1), or the rule is unknown.

    Example:
        >>> import torch
        >>> from fluxsr.flows import FlowTrajectoryDistillation, LatentPair
        >>> hr, lr, noise = torch.randn(3, 2, 4, 8, 8)
        >>> objective = FlowTrajectoryDistillation(lr_time=0.25)
        >>> oracle = lambda xt, t: (lr - hr) / 0.25
        >>> objective(oracle, LatentPair(hr, lr, noise)).loss.item() < 1e-10
        True
        >>> torch.allclose(objective.restore(oracle, lr), hr, atol=1e-6)
        True
    """

    def __init__(
        self,
        lr_time: float | Literal["auto"] = 0.25,
        time_sampler: TimeSampler | None = None,
        rule: Rule = "norm",
    ) -> None:
        super().__init__()
        check_rule(rule)
        self._lr_time: float | None = None
        if lr_time != "auto":
            self.lr_time = lr_time
        self.time_sampler = time_sampler if time_sampler is not None else UniformTimes()
        self.rule: Rule = rule

    @property
    def is_settled(self) -> bool:
        """Whether T_L has a value; it has none yet where it is to be measured."""
        return self._lr_time is not None

    @property
    def lr_time(self) -> float:
        """T_L, the time at which the LR latents stand; a ``ValueError`` while it is to be measured."""
        if self._lr_time is None:
            raise ValueError(
                "lr_time is auto and was not measured yet: train with OneStepSR, load a checkpoint, or set objective.lr_time"
            )
        return self._lr_time

    @lr_time.setter
    def lr_time(self, value: float) -> None:
        if isinstance(value, str) or not 0 < value < 1:
            raise ValueError(f"lr_time must lie in (0, 1), got {value!r}; 0.5 is a good start for FLUX's latents")
        self._lr_time = float(value)

    @property
    def start_time(self) -> float:
        """Restoration starts at the LR latents' own time."""
        return self.lr_time

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Keep T_L in state dicts, as a tensor that every file format holds."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_settled:  # what loads into a module reads its own state dict first
            # Not a buffer, which .half() and .bfloat16() would round.
            destination[prefix + "lr_time"] = torch.tensor(self.lr_time, dtype=torch.float64, device="cpu")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take T_L from a state dict; one without it loads, too."""
        self.take_state(state_dict, prefix)
        state_dict.pop(prefix + "lr_time", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def take_state(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Set T_L to what a state dict says, where it says something."""
        if prefix + "lr_time" in state:
            self.lr_time = float(state[prefix + "lr_time"])

    def extra_repr(self) -> str:
        """Show T_L."""
        return f"lr_time={self._lr_time if self.is_settled else 'auto'}, rule={self.rule}"

    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw times ``(batch_size,)`` in ``[T_L, 1]``."""
        return self._stretch(self.time_sampler(batch_size, generator=generator))

    def time_grid(self) -> Tensor | None:
        """Return the grid of ``time_sampler``, stretched to ``[T_L, 1]``, with T_L itself; ``None`` without a grid."""
        grid = self.time_sampler.grid()
        if grid is None:
            return None
        return torch.cat([self._stretch(grid), torch.tensor([self.lr_time], device="cpu")]).unique()

    def _stretch(self, share: Tensor) -> Tensor:
        return self.lr_time + (1 - self.lr_time) * share

    def path(self, lr: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return ``z_t`` on the noise-to-LR path: ``lr`` at ``t = T_L``, ``noise`` at ``t = 1`` (eq. 16).

        The paper's figure prints the second term with a minus; only the plus gives the noise at t = 1.

        Raises:
            ValueError: If shapes differ or a time lies before T_L, where this path does not exist.
        """
        check_same_shape(lr=lr, noise=noise)
        check_times(t, len(lr), self.lr_time)
        return self._mixture(lr, noise, t)

    def _mixture(self, lr: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return mix(lr, noise, (expand_times(t, lr) - self.lr_time) / (1 - self.lr_time))

    def times_for(
        self, pair: LatentPair, times: Times | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the given or drawn times in ``[T_L, 1]``, on the latents' device."""
        if times is None:
            times = self.sample_times(len(pair.hr), generator=generator)
        return check_times(times, len(pair.hr), self.lr_time).to(pair.hr.device, non_blocking=True)

    def restore(self, velocity: VelocityModel, start: Tensor, steps: int = 1) -> Tensor:
        """Return ``z_L - T_L v(z_L, T_L)`` (eq. 18), or that stretch in several Euler steps."""
        return euler(velocity, start, self.lr_time, 0.0, steps)

    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        times: Times | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the FTD loss and the one-step restoration; needs all three members of the pair.

        The velocity model is called twice: at ``(z_t, t)`` for the loss, then at ``(z_L, T_L)`` for the restoration.

        Raises:
            ValueError: If a member is missing, shapes differ, values are not finite, or a time lies before T_L.
        """
        hr, lr, noise = pair.check("lr", "noise")
        t = self.times_for(pair, times, generator)
        v = velocity_at(velocity, self._mixture(lr, noise, t), t)
        loss = pair.distance_to_hr(distance, lr - self.lr_time * v)
        return FlowOutput(loss, x0_hat=self.restore(velocity, lr), x0_target=hr, restoration_pass=1)
