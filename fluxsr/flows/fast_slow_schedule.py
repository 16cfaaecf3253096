"""Draws FlowSR's fast-slow pairs of times: one from a coarse grid and the other near it on a fine one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fluxsr.flows.timesteps import shift_times


class FastSlowSchedule:
    """Draws adjacent times ``s < t`` alternately from a fast and a slow grid (FlowSR, arXiv 2605.12377).

    Plain consistency training compares neighbors on one grid. A fine grid has many steps, each with a tiny signal; a coarse
    one has few, each with a large teacher error. Here every pair has one end on the fast grid, where few-step sampling will
    stop. The other end is anywhere on the slow grid within the fast interval next to it::

        with probability fast_share   t on the fast grid, s on the slow grid in [t - interval, t)
        otherwise                     s on the fast grid, t on the slow grid in (s, s + interval]

    The paper says that the two grids alternate, but not by which law: this one, with one half, is our default. Equal grids
    give plain consistency training on that grid.

    Args:
        fast_steps: Intervals of the fast grid, or its times themselves, ascending from 0 to 1. The paper has 4.
        slow_steps: The same of the slow grid, which must hold every time of the fast one. The paper has 1,000.
        fast_share: Probability in ``[0, 1]`` that the later time is the one on the fast grid.
        shift: Moves the times of grids given by number towards t = 1 by :func:`fluxsr.flows.shift_times`; 1 leaves them even.

    Raises:
        ValueError: If a grid is empty or not ascending from 0 to 1, the grids don't nest, or a number is out of range.

    Example:
        >>> import torch
        >>> from fluxsr.flows import FastSlowSchedule
        >>> s, t = FastSlowSchedule(4, 1000).sample(8, generator=torch.Generator().manual_seed(0))
        >>> bool(((s < t) & (t - s <= 0.25)).all())
        True
    """

    def __init__(
        self,
        fast_steps: int | Sequence[float] = 4,
        slow_steps: int | Sequence[float] = 1000,
        fast_share: float = 0.5,
        shift: float = 1.0,
    ) -> None:
        if not 0 <= fast_share <= 1:
            raise ValueError(f"fast_share is a probability and must lie in [0, 1], got {fast_share}")
        self.fast_grid = _grid("fast_steps", fast_steps, shift)
        self.slow_grid = _grid("slow_steps", slow_steps, shift)
        self.fast_share = fast_share
        self._position = _nested(self.fast_grid, self.slow_grid)

    def sample(self, batch_size: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``(s, t)``, each ``(batch_size,)`` float32, ``0 <= s < t <= 1``, on the generator's device (else CPU).

        All fast intervals are equally likely, and so are all slow times within one.
        """
        device = generator.device if generator is not None else torch.device("cpu")
        coin, interval, within = torch.rand(3, batch_size, generator=generator, device=device)
        fast, slow, position = (x.to(device) for x in (self.fast_grid, self.slow_grid, self._position))
        k = (interval * (len(fast) - 1)).long()
        inner = (within * (position[k + 1] - position[k])).long()  # 0 is the interval's first slow time
        t_is_fast = coin < self.fast_share
        s = torch.where(t_is_fast, slow[position[k] + inner], fast[k])
        t = torch.where(t_is_fast, fast[k + 1], slow[position[k] + inner + 1])
        return s, t

    def __repr__(self) -> str:
        """Show the grids' sizes."""
        return f"FastSlowSchedule({len(self.fast_grid) - 1}, {len(self.slow_grid) - 1}, fast_share={self.fast_share})"


def _grid(name: str, steps: int | Sequence[float], shift: float) -> Tensor:
    """Return the times of a grid, ``(steps + 1,)`` float32 from 0 to 1."""
    if isinstance(steps, int):
        if steps < 1:
            raise ValueError(f"{name} must be at least 1, got {steps}")
        return shift_times(torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps, shift).float()
    times = torch.tensor(list(steps), dtype=torch.float64, device="cpu").float()
    if len(times) < 2 or times[0] != 0 or times[-1] != 1 or bool((times.diff() <= 0).any()):
        raise ValueError(f"the times of {name} must ascend from 0 to 1, got {list(steps)}")
    return times


def _nested(fast: Tensor, slow: Tensor) -> Tensor:
    """Return the position of every fast time on the slow grid."""
    gaps, position = (fast[:, None] - slow[None, :]).abs().min(dim=1)
    if bool((gaps > 1e-6).any()):
        missing = float(fast[int((gaps > 1e-6).long().argmax())])
        raise ValueError(
            f"the grids don't nest: the fast time {missing:g} is not on the slow grid of {len(slow) - 1} steps: take a multiple"
        )
    return position
