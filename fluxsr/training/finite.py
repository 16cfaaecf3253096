"""Stops before NaN reaches a file: it checks the losses of each step, and the weights before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EVERY = 20  # steps between two looks on a GPU, which has to be waited for


class NotFinite(ValueError):
    """Training produced NaN or infinity.

    Attributes:
        step: The first step whose loss was not finite, or the step at which the weights were found not to be.
        terms: The loss terms of that step by name; empty where it is the weights.
    """

    def __init__(self, step: int, terms: Mapping[str, float]) -> None:
        values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        what = (
            f"the loss is not finite at step {step} ({values})"
            if terms
            else f"the weights are not finite at step {step}"
        )
        super().__init__(
            f"{what}: training stops and no file was replaced, so the last checkpoint is good; go on from it with a lower "
            "learning rate, with gradient_clip_val, or without the term that is not finite"
        )
        self.step = step
        self.terms = dict(terms)


class FiniteGuard:
    """Keeps the losses of the last steps, unread, and reads them every so often and before a file is written.

    Reading makes a GPU wait, so there it happens every 20 steps; on a CPU it happens in each.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def watch(self, step: int, terms: Mapping[str, Tensor], strategy: Any) -> None:
        """Take the terms of a step, and look where it is time to. Every process must call it.

        Raises:
            NotFinite: If a loss of these steps was not finite, on any process.
        """
        values = torch.stack([value.detach().float().reshape(()) for value in terms.values()])
        self._unread.append((step, list(terms), values))
        if values.device.type in ("cpu", "meta") or len(self._unread) >= EVERY:
            self.check(strategy)

    def check(self, strategy: Any, weights: Iterable[Tensor] = (), step: int = 0) -> None:
        """Look at the losses that were not looked at yet, and at weights. Every process must call it.

        Args:
            strategy: The trainer's.
            weights: Weights that are about to be written.
            step: Step of the trainer.

        Raises:
            NotFinite: If something is not finite, on any process.
        """
        unread, self._unread = self._unread, []
        parts = [getattr(weight, "_local_tensor", weight).detach() for weight in weights]
        looked_at = [values for *_, values in unread] + parts
        if not looked_at or looked_at[0].is_meta:
            return
        flags = torch.stack([~torch.isfinite(one).all() for one in looked_at]).float()
        everywhere = strategy.reduce(flags.clone(), reduce_op="sum").tolist()
        bad = [number for number, flag in enumerate(everywhere) if flag]
        if not bad:
            return
        if bad[0] >= len(unread):
            raise NotFinite(step, {})
        first, names, values = unread[bad[0]]
        read = dict(zip(names, values.tolist(), strict=True))
        raise NotFinite(first, read if not all(map(math.isfinite, read.values())) else {"another process": math.nan})
