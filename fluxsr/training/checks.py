"""Refuses, before or while training starts, what would fail late or go wrong silently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from fluxsr.flows import FlowObjective
from fluxsr.models.student import differing
from fluxsr.training.adversary import ADVERSARIAL
from fluxsr.training.strategies import FSDP2Strategy
from fluxsr.training.terms import FLOW


def check_arguments(losses: Iterable[str], flow_weight: float, scale: int | None) -> None:
    """Refuse names of losses that the module logs its own terms under, and numbers out of range.

    Raises:
        ValueError: Naming the value.
    """
    taken = {FLOW, "loss", ADVERSARIAL, "discriminator"} & set(losses)
    if taken:
        raise ValueError(f"a loss can't be named {taken.pop()!r}: that name is logged for the module's own terms")
    if flow_weight < 0:
        raise ValueError(f"flow_weight must not be negative, got {flow_weight}")
    if scale is not None and scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")


def check_strategy(strategy: Any, quantization: str | None) -> None:
    """Refuse what would fail late or train wrongly under a strategy that shards.

    Args:
        strategy: The trainer's.
        quantization: How the backbone's frozen weights are quantized; ``None``: they are not.

    Raises:
        ValueError: Saying what to use instead.
    """
    if not isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        return
    name = type(strategy).__name__
    if quantization is not None:
        raise ValueError(
            f"{name} can't shard {quantization} weights (they would fail, or be gathered wrongly, without a word): train with "
            "strategy ddp, where every GPU holds the small base, or without quantize"
        )
    if isinstance(strategy, FSDPStrategy):
        raise ValueError(
            f"{name} flattens the weights of a unit into one tensor of one dtype, and here float32 adapters lie on a bfloat16 "
            "base: set strategy to fsdp2, which shards each weight by itself"
        )
    if not isinstance(strategy, FSDP2Strategy):
        raise ValueError(
            f"{name} numbers the optimizer's states by frozen parameters too, so its checkpoints of adapters don't load "
            "elsewhere: set strategy to fsdp2, which is the same with checkpoints that do"
        )


def check_same_weights(digest: str, strategy: Any) -> None:
    """Refuse processes whose frozen weights have different digests; every process must call it.

    Raises:
        ValueError: Saying how they come to be the same.
    """
    differs = torch.tensor(float(digest != strategy.broadcast(digest)), device=strategy.root_device)
    if float(strategy.reduce(differs, reduce_op="sum")):
        raise ValueError(
            "the processes have different frozen weights: load the same files on all of them, or, for random weights, set "
            "the same seed before the model is made (--seed_everything, or lightning.seed_everything)"
        )


def check_grid(objective: FlowObjective) -> Tensor:
    """Return the times of an objective's grid, ascending float32; refuse one without a grid.

    Raises:
        ValueError: Saying what to use instead.
    """
    times = objective.time_grid()
    if times is None:
        raise ValueError(
            "modulation_table needs an objective whose times are on a grid: give it time_sampler: fluxsr.flows.GridTimes"
        )
    return times


def check_precision(precision: str, parameters: Mapping[str, Tensor], adversarial: bool) -> None:
    """Refuse to train what has fewer bits than float32, and float16 with an adversary.

    A step of 1e-4 of a weight is less than half of what bfloat16 tells apart, so most weights would never move. What is
    frozen may have any dtype, and activations too (the mixed precisions).

    Args:
        precision: The trainer's.
        parameters: What is trained, by name.
        adversarial: Whether there is an adversary.

    Raises:
        ValueError: Saying what to use instead.
    """
    if precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"precision {precision} casts what is trained, too, whose small steps are then rounded away: take precision "
            f"{precision.replace('true', 'mixed')}, and dtype bfloat16 for the frozen base"
        )
    narrow = {name: one.dtype for name, one in parameters.items() if one.dtype.itemsize < 4}
    if narrow:
        name, dtype = next(iter(narrow.items()))
        raise ValueError(
            f"{len(narrow)} trained weights are {str(dtype).removeprefix('torch.')} ({name}), whose small steps are lost in "
            "rounding: train with dtype float32 and precision bf16-mixed, or an adapter (trainable: lora) on a frozen base"
        )
    if adversarial and precision.startswith("16"):
        raise ValueError("the adversary's steps don't scale gradients, which float16 needs; take precision bf16-mixed")


def check_pairs(pairs: Mapping[str, Any], own: dict[str, Any]) -> None:
    """Refuse teacher pairs of another autoencoder, by what both descriptions say of theirs.

    Args:
        pairs: Fingerprint of the pairs; empty without pairs.
        own: Fingerprint of the module's autoencoder.

    Raises:
        ValueError: Naming both.
    """
    made_with = pairs.get("autoencoder", {})
    if differing(made_with, own):
        raise ValueError(
            f"the teacher pairs hold latents of another autoencoder: {made_with}, and this model's is {own}; make pairs "
            "with this one (`fluxsr pairs`), or train with theirs"
        )
