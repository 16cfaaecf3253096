"""Random numbers that do not depend on how many processes train."""

from __future__ import annotations

import hashlib

import torch


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator that depends on the seed, the step and what it is for, and on nothing else.

    Every process draws for the *global* batch from it and takes its own rows, so one global batch has the same times and
    noise on one process and on eight.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
