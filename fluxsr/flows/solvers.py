"""Integrates a velocity field by Euler's method: one step restores, many steps sample."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fluxsr.flows.paths import velocity_at
from fluxsr.protocols import VelocityModel


def euler(
    velocity: VelocityModel,
    x: Tensor,
    t_start: float,
    t_end: float,
    steps: int,
    *,
    shift: float = 1.0,
) -> Tensor:
    """Integrate ``dx/dt = velocity(x, t)`` from ``t_start`` to ``t_end`` by Euler's method, of first order.

    Works in both directions: from noise to data with ``t_start > t_end``, and back (inversion) with the reverse.
    Gradients flow if the caller leaves them on.

    Args:
        velocity: Any callable ``velocity(xt, t) -> v``.
        x: The state at ``t_start``, ``(B, C, h, w)``; the result is the one at ``t_end``.
        t_start, t_end: Times in ``[0, 1]``; equal ones return ``x`` unchanged.
        steps: Number of steps, at least 1.
        shift: FLUX's time shift of the inner grid points (:func:`fluxsr.flows.shift_times`); 1 is an even grid.

    Raises:
        ValueError: If ``steps`` is below 1, a time lies outside ``[0, 1]``, or ``velocity`` returns no tensor shaped as ``x``.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for name, value in (("t_start", t_start), ("t_end", t_end)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1] (0 is data, 1 is noise), got {value}")
    times = time_grid(t_start, t_end, steps, shift=shift)
    for t, s in itertools.pairwise(times):
        now = torch.full((x.shape[0],), t, device=x.device, dtype=torch.float32)
        x = x + (s - t) * velocity_at(velocity, x, now)
    return x


def time_grid(t_start: float, t_end: float, steps: int, *, shift: float = 1.0) -> list[float]:
    """Return ``steps + 1`` times from ``t_start`` to ``t_end``; both ends stay exact under any shift.

    The grid is even in the unshifted time, so the two directions use the same points.
    """
    # The inverse of a shift by s is one by 1 / s. In plain numbers, so that nothing here is for a compiler to trace.
    first, last = _shifted(t_start, 1 / shift), _shifted(t_end, 1 / shift)
    width = (last - first) / steps
    # From both ends to the middle, as torch.linspace does it.
    inner = (first + width * i if 2 * i < steps + 1 else last - width * (steps - i) for i in range(1, steps))
    return [t_start, *(_shifted(t, shift) for t in inner), t_end]


def _shifted(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)
