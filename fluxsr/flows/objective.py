"""Defines the contract of every flow-trajectory objective: its inputs, its outputs, and their checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fluxsr.flows.paths import check_finite, check_same_shape, check_times
from fluxsr.protocols import VelocityModel

Distance = Callable[[Tensor, Tensor], Tensor]
"""What an objective measures with: two latents ``(B, C, h, w)`` of the data end, to a scalar with gradient."""


@runtime_checkable
class ImageDistance(Protocol):
    """A distance of latents that decodes them, and that takes photos in the place of decoded HR latents."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of two latents ``(B, C, h, w)``."""
        ...

    def to_photos(self, estimate: Tensor, hr_image: Tensor) -> Tensor:
        """Return the distance of latents ``(B, C, h, w)`` to photos ``(B, 3, H, W)`` in ``[0, 1]``."""
        ...


class LatentPair(NamedTuple):
    """The input of an objective. Every tensor is ``(B, C, h, w)`` in normalized latents.

    Attributes:
        hr: The data end: latents of the high-resolution image.
        lr: Latents of the low-resolution image, resized to the target size before encoding.
        noise: The Gaussian end; for a teacher pair the very noise that the teacher turned into ``hr``.
        hr_image: The photos ``(B, 3, H, W)`` in ``[0, 1]`` behind ``hr``, for an :class:`ImageDistance`: an autoencoder loses
            details, so images must be compared with the photo and not with its decoded latents.
    """

    hr: Tensor
    lr: Tensor | None = None
    noise: Tensor | None = None
    hr_image: Tensor | None = None

    def distance_to_hr(self, distance: Distance, estimate: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the distance of an estimate ``(b, C, h, w)`` to the HR end, or to its photos for an :class:`ImageDistance`.

        ``rows`` ``(b,)`` are the rows of the batch that it belongs to; ``None``: all in order.
        """
        if self.hr_image is not None and isinstance(distance, ImageDistance):
            return distance.to_photos(estimate, self.hr_image if rows is None else self.hr_image[rows])
        return distance(estimate, self.hr if rows is None else self.hr[rows])

    def check(self, *names: str) -> tuple[Tensor, ...]:
        """Return ``hr`` and the members named, ``"lr"`` or ``"noise"``, in their order.

        Raises:
            ValueError: If a member is missing, shapes differ, a dtype is not floating, or a value is not finite.
        """
        members: dict[str, Tensor] = {"hr": self.hr, **{name: getattr(self, name) for name in names}}
        for name, value in members.items():
            if value is None:
                raise ValueError(f"this objective needs LatentPair.{name}, which is None")
        check_same_shape(**members)
        check_finite(**members)
        return tuple(members.values())


class PairedTimes(NamedTuple):
    """Adjacent times of a batch, and which of its rows train the plain flow term instead. Every tensor is ``(B,)``.

    Attributes:
        s: The earlier times, nearer the data, in ``[0, 1)``; in flow rows they are not used.
        t: The later times, in ``(0, 1]``, or the time at which a flow row trains.
        flow_rows: Booleans; true where the row trains the flow term.
    """

    s: Tensor
    t: Tensor
    flow_rows: Tensor


Times = Tensor | PairedTimes
"""Times of a batch: one for each row, or adjacent pairs."""


class Role(NamedTuple):
    """A velocity model that an objective needs beside the student, passed to the call under its name.

    Attributes:
        name: The keyword of :meth:`FlowObjective.forward`.
        decay: ``None`` for a frozen model. With a number in ``[0, 1)`` the role is the student's moving average,
            ``role = decay * role + (1 - decay) * student`` after every step.
    """

    name: str
    decay: float | None = None


class FlowOutput(NamedTuple):
    """The output of an objective.

    Attributes:
        loss: Scalar, the mean over batch and elements.
        x0_hat: One-step estimate of the data end, ``(b, C, h, w)``; it carries gradient to the velocity model.
        x0_target: What ``x0_hat`` should be, row by row.
        estimates: Further ``(x0_hat, x0_target)`` pairs, for objectives that make several.
        logs: Detached scalars worth a curve of their own.
        restoration_pass: Number of the call of ``velocity``, counted from 0, that made ``x0_hat``. Feature losses look at that
            pass. It may be left out where there is only one call.
        estimate_rows: Rows of the batch that each of ``estimates`` belongs to, as ``rows``, for estimates of photos; without
            them the images of their targets are decoded.
        rows: Rows of the batch that ``x0_hat`` belongs to, ``(b,)`` integers on the CPU. ``None`` means every row in
            order, and then ``x0_target`` must be ``pair.hr`` itself.
    """

    loss: Tensor
    x0_hat: Tensor
    x0_target: Tensor
    estimates: tuple[tuple[Tensor, Tensor], ...] = ()
    logs: dict[str, Tensor] = {}  # noqa: RUF012  a NamedTuple's default; never written to
    restoration_pass: int | None = None
    estimate_rows: tuple[Tensor, ...] = ()
    rows: Tensor | None = None

    def check(self, pair: LatentPair) -> None:
        """Check that the rows of the estimate are known: images are compared with the photos of these rows of ``pair``."""
        batch = len(pair.hr)
        if self.estimate_rows and len(self.estimate_rows) != len(self.estimates):
            found, named = len(self.estimates), len(self.estimate_rows)
            raise ValueError(f"FlowOutput has {found} estimates and the rows of {named}: give those of each")
        for (x0_hat, x0_target), rows in zip(self.estimates, self.estimate_rows, strict=False):
            _check_rows("estimate_rows", rows, batch, x0_hat, x0_target)
        if self.rows is None:
            if self.x0_target is not pair.hr:
                raise ValueError(
                    "x0_target is not pair.hr itself, and there are no rows: return FlowOutput(..., rows=indices)"
                )
            if len(self.x0_hat) != batch:
                raise ValueError(f"x0_hat has {len(self.x0_hat)} rows and the batch {batch}: return rows=indices, too")
            return
        _check_rows("rows", self.rows, batch, self.x0_hat, self.x0_target)
        if self.x0_target is pair.hr and not self.rows.is_meta and self.rows.tolist() != [*range(batch)]:
            raise ValueError(
                f"rows says {self.rows.tolist()}, and x0_target is pair.hr in its order: return pair.hr[rows]"
            )


def _check_rows(name: str, rows: Tensor, batch: int, x0_hat: Tensor, x0_target: Tensor) -> None:
    if not isinstance(rows, Tensor) or rows.ndim != 1 or rows.dtype != torch.int64:
        raise ValueError(f"FlowOutput.{name} must be a vector of int64 indices, got {rows!r}")
    if not len(rows) == len(x0_hat) == len(x0_target):
        raise ValueError(
            f"FlowOutput.{name} has {len(rows)} entries, x0_hat {len(x0_hat)} rows and x0_target {len(x0_target)}"
        )
    if not rows.is_meta and bool(((rows < 0) | (rows >= batch)).any()):
        raise ValueError(f"FlowOutput.{name} must lie in 0 .. {batch - 1}, got {rows.tolist()}")


def latent_mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of two latents of one shape, computed in float32 at least: a scalar."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    return nn.functional.mse_loss(a.to(dtype), b.to(dtype))


class FlowObjective(nn.Module, ABC):
    """A flow-trajectory objective: numbers only, no networks.

    All that it needs at run time (velocity model, times, distance) is passed to the call, so it never sees an
    image and never knows what the velocity model is. A subclass writes :meth:`sample_times`, :meth:`restore`,
    :meth:`forward` and the property :attr:`start_time`.
    """

    @property
    def roles(self) -> tuple[Role, ...]:
        """Velocity models beside the student that :meth:`forward` takes as keywords; none by default."""
        return ()

    @property
    def is_settled(self) -> bool:
        """Whether all times are known; they are not while one is still to be measured."""
        return True

    @property
    @abstractmethod
    def start_time(self) -> float:
        """The time at which :meth:`restore` starts: ``lr_time`` for FTD, 1 for a noise or LR end."""

    @property
    def starts_from_noise(self) -> bool:
        """Whether :meth:`restore` starts from Gaussian noise rather than from the LR latents."""
        return False

    @abstractmethod
    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> Times:
        """Draw the times that :meth:`forward` trains at, ``(batch_size,)`` float32, on the generator's device."""

    def time_grid(self) -> Tensor | None:
        """Return all times at which training and one-step restoration call a velocity model, ascending float32.

        ``None``, the default, where they are not finitely many.
        """
        return None

    @abstractmethod
    def restore(self, velocity: VelocityModel, start: Tensor, steps: int = 1) -> Tensor:
        """Return the data-end latents from ``start`` ``(B, C, h, w)``, the state at :attr:`start_time`."""

    def times_for(
        self, pair: LatentPair, times: Times | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the given times, or else drawn ones, checked, on the latents' device.

        Times are checked where they lie: on the CPU, where they are drawn, that costs no wait for a GPU.

        Raises:
            ValueError: If ``times`` are not one finite number in ``[0, 1]`` per row.
        """
        if times is None:
            times = self.sample_times(len(pair.hr), generator=generator)
        return check_times(times, len(pair.hr)).to(pair.hr.device, non_blocking=True)

    @abstractmethod
    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        times: Times | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the loss and the one-step estimate for one batch.

        Args:
            velocity: The student, any callable ``velocity(xt, t) -> v``.
            pair: The latents; which members are needed is the subclass's to say.
            times: Times as :meth:`sample_times` draws them; drawn here when not given.
            distance: Distance of two latents, a scalar; both arguments are in the space of the data end.
            generator: Source of the times, when they are drawn here.
        """

    def __call__(self, velocity: VelocityModel, pair: LatentPair, **options: Any) -> FlowOutput:
        """Run :meth:`forward` and check both sides of the contract.

        Raises:
            ValueError: If ``pair`` is no :class:`LatentPair`, or the output does not say which rows it belongs to.
        """
        if not isinstance(pair, LatentPair):
            kind = f"{type(pair).__name__}: LatentPair(**pair)" if isinstance(pair, dict) else type(pair).__name__
            raise ValueError(f"{type(self).__name__} takes a LatentPair(hr, lr, noise), got a {kind}")
        output = super().__call__(velocity, pair, **options)
        if not isinstance(output, FlowOutput):
            raise ValueError(f"{type(self).__name__}.forward must return a FlowOutput, got a {type(output).__name__}")
        output.check(pair)
        return output
