"""Draws random numbers that do not depend on how many processes train."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator that depends on the seed, the step and what it is for, and on nothing else.

    Every process draws for the *global* batch from it and takes its own rows, so one global batch has the same times and
    noise on one process and on eight.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def own_rows(drawn: Tensor, rank: int, world: int) -> Tensor:
    """Return one process's rows of what was drawn for the global batch: every ``world``-th, as the sampler
    distributes them.
    """
    return drawn[rank::world]


def row_noise(rows: Sequence[int], shape: Sequence[int], seed: int, step: int, rank: int, world: int) -> Tensor:
    """Return noise for rows of one process, on the CPU: each has a generator of its own, by its place in the global batch.

    Args:
        rows: Numbers of the rows in the batch of this process.
        shape: ``(C, h, w)``, the shape of one row.
        seed: Seed of the training.
        step: The training's step.
        rank: Number of the process.
        world: Number of processes.
    """
    generators = (step_generator(seed, step, f"noise of row {rank + row * world}") for row in rows)
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def rows_counted_here(trainer: Any, stage: str, batch_idx: int, rows: int) -> int:
    """Return how many rows of a batch, from the first on, no process has seen before.

    A distributed sampler repeats the first samples so that every process has equally many; a mean over them would count those
    twice.

    Args:
        trainer: Lightning's.
        stage: ``val`` or ``test``.
        batch_idx: Number of the batch on this process.
        rows: Rows of the batch.
    """
    loader = getattr(trainer, f"{stage}_dataloaders", None)
    sampler: Any = getattr(loader, "sampler", None)
    size = getattr(loader, "batch_size", None)
    if size is None or not all(hasattr(sampler, name) for name in ("num_replicas", "rank", "dataset")):
        return rows
    there = len(sampler.dataset)
    places = ((batch_idx * size + row) * sampler.num_replicas + sampler.rank for row in range(rows))
    return sum(place < there for place in places)
