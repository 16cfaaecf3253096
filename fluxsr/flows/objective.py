"""The contract that every flow-trajectory objective keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.flows.paths import require_times
from fluxsr.protocols import VelocityModel

Distance = Callable[[Tensor, Tensor], Tensor]
"""What an objective measures with: two latents ``(B, C, h, w)`` of the data end, to a scalar with gradient."""


class LatentPair(NamedTuple):
    """What an objective learns from. Every tensor is ``(B, C, h, w)`` in normalised latents.

    Attributes:
        hr: the data end: latents of the high-resolution image.
        lr: latents of the low-resolution image, resized to the target size before encoding.
        noise: the Gaussian end; for a teacher pair the very noise that the teacher turned into ``hr``.
    """

    hr: Tensor
    lr: Tensor | None = None
    noise: Tensor | None = None


class FlowOutput(NamedTuple):
    """What an objective gives back.

    Attributes:
        loss: scalar, the mean over batch and elements.
        x0_hat: the one-step estimate of the data end, ``(b, C, h, w)``; carries gradient to the velocity model.
        x0_target: what ``x0_hat`` should be, row by row. It *is* ``pair.hr`` where every row is used in order.
        estimates: further ``(x0_hat, x0_target)`` pairs, for objectives that make several.
        logs: detached scalars worth a curve of their own.
    """

    loss: Tensor
    x0_hat: Tensor
    x0_target: Tensor
    estimates: tuple[tuple[Tensor, Tensor], ...] = ()
    logs: dict[str, Tensor] = {}  # noqa: RUF012  a NamedTuple's default; never written to


def latent_mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of two latents, computed in float32 at least: a scalar.

    Args:
        a, b: of one shape.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    return nn.functional.mse_loss(a.to(dtype), b.to(dtype))


class FlowObjective(nn.Module, ABC):
    """A flow-trajectory objective: numbers only, no networks.

    All that it needs at run time (velocity model, times, distance) is handed to the call, so it never sees an
    image and never knows what the velocity model is.

    A subclass writes three methods. The **last** call of ``velocity`` in :meth:`forward` must be the pass that makes
    ``x0_hat``: that is how feature losses know the restoration pass from the others.

    Attributes:
        roles: names of the velocity models beside the student that :meth:`forward` takes as keywords; none by default.
    """

    roles: tuple[str, ...] = ()

    @property
    @abstractmethod
    def start_time(self) -> float:
        """The time at which :meth:`restore` starts: ``lr_time`` for FTD, 1 for a noise or LR end."""

    @property
    def starts_from_noise(self) -> bool:
        """Whether :meth:`restore` starts from Gaussian noise rather than from the LR latents."""
        return False

    @abstractmethod
    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw the times ``(batch_size,)`` that :meth:`forward` trains at, float32, on the generator's device."""

    def time_grid(self) -> Tensor | None:
        """Return all times at which training and one-step restoration call a velocity model, ascending float32.

        ``None``, the default, where they are not finitely many.
        """
        return None

    @abstractmethod
    def restore(self, velocity: VelocityModel, start: Tensor, steps: int = 1) -> Tensor:
        """Return the data-end latents from ``start`` ``(B, C, h, w)``, the state at :attr:`start_time`."""

    def times_for(
        self, pair: LatentPair, times: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the given times, or else drawn ones, on the latents' device.

        Args:
            pair: the latents.
            times: as :meth:`forward` got them.
            generator: as :meth:`forward` got it.

        Raises:
            ValueError: if ``times`` is no tensor.
        """
        if times is None:
            times = self.sample_times(len(pair.hr), generator=generator)
        require_times(times)
        return times.to(pair.hr.device)

    @abstractmethod
    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        times: Tensor | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the loss and the one-step estimate for one batch.

        Args:
            velocity: the student, any callable ``velocity(xt, t) -> v``.
            pair: the latents; which members are needed is the subclass's to say.
            times: ``(B,)``; drawn by :meth:`sample_times` when not given.
            distance: of two latents, to a scalar; both arguments live in the space of the data end.
            generator: for the times, when they are drawn here.
        """


def require_member(pair: LatentPair, name: str, objective: FlowObjective) -> Tensor:
    """Return ``pair.name``.

    Raises:
        ValueError: if it is missing, saying which objective wants it, or ``pair`` is something else.
    """
    if not hasattr(pair, name):
        raise ValueError(
            f"{type(objective).__name__} takes a LatentPair(hr, lr, noise), got a {type(pair).__name__}"
            + (": LatentPair(**pair)" if isinstance(pair, dict) else "")
        )
    value = getattr(pair, name)
    if value is None:
        raise ValueError(f"{type(objective).__name__} needs LatentPair.{name}, which is None")
    return value
