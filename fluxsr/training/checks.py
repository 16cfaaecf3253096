"""Refuses, before or while training starts, what would fail late or go wrong silently."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fluxsr.models.student import differing

EVERY = 20  # steps between two looks at losses on a GPU, which has to be waited for


def check_same_weights(digest: str, strategy: Any) -> None:
    """Refuse processes whose frozen weights have different digests; every process must call it."""
    differs = torch.tensor(float(digest != strategy.broadcast(digest)), device=strategy.root_device)
    if float(strategy.reduce(differs, reduce_op="sum")):
        raise ValueError(
            "the processes have different frozen weights: load the same files on all of them, or, for random weights, set one "
            "seed before the model is made (seed_everything)"
        )


def check_precision(precision: str, parameters: Mapping[str, Tensor], adversarial: bool) -> None:
    """Refuse to train what has fewer bits than float32, and float16 with an adversary.

    A step of 1e-4 of a weight is less than half of what bfloat16 tells apart, so most weights would never move. What is
    frozen may have any dtype, and activations too (the mixed precisions).
    """
    if precision in ("bf16-true", "16-true"):
        mixed = precision.replace("true", "mixed")
        raise ValueError(
            f"precision {precision} casts what is trained, too, whose small steps are then lost: take {mixed}, and dtype "
            "bfloat16 for the frozen base"
        )
    narrow = {name: one.dtype for name, one in parameters.items() if one.dtype.itemsize < 4}
    if narrow:
        name, dtype = next(iter(narrow.items()))
        raise ValueError(
            f"{len(narrow)} trained weights are {dtype} ({name}), whose small steps are lost in rounding: train with dtype "
            "float32 and precision bf16-mixed, or an adapter (trainable: lora) on a frozen base"
        )
    if adversarial and precision.startswith("16"):
        raise ValueError("the adversary's steps don't scale gradients, which float16 needs; take precision bf16-mixed")


def check_pairs(pairs: Mapping[str, Any], own: dict[str, Any]) -> None:
    """Refuse teacher pairs of another autoencoder, by what their fingerprint and the own autoencoder's say."""
    made_with = pairs.get("autoencoder", {})
    if differing(made_with, own):
        raise ValueError(
            f"the teacher pairs hold latents of another autoencoder: {made_with}, and this model's is {own}; make pairs "
            "with this one (`fluxsr pairs`), or train with theirs"
        )


class NotFinite(ValueError):
    """Training produced NaN or infinity."""

    def __init__(self, step: int, terms: Mapping[str, float]) -> None:
        what = "loss is" if terms else "weights are"
        values = "".join(f", {name} {value:g}" for name, value in terms.items())
        super().__init__(
            f"the {what} not finite at step {step}{values}: training stops and no file was replaced, so the last checkpoint is "
            "good; go on from it with a lower learning rate, with gradient_clip_val, or without the term that is not finite"
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
        """Take the terms of a step, and look where it is time to. Every process must call it."""
        values = torch.stack([value.detach().float().reshape(()) for value in terms.values()])
        self._unread.append((step, list(terms), values))
        if values.device.type in ("cpu", "meta") or len(self._unread) >= EVERY:
            self.check(strategy)

    def check(self, strategy: Any, weights: Iterable[Tensor] = (), step: int = 0) -> None:
        """Look at the losses that were not looked at yet, and at weights that are about to be written in this step.

        Every process must call it, and raises :class:`NotFinite` if something is not finite on any of them.
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
