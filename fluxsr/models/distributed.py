"""Gathers tensors that are sharded over processes for writing, and scatters them after reading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor in one piece, on the CPU; any other as it is. Every process must call it."""
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor on the device of ``other``, and sharded as ``other`` is. Every process must call it."""
    tensor = tensor.to(other.device)
    if not hasattr(other, "full_tensor") or hasattr(tensor, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = other
    return distribute_tensor(tensor, sharded.device_mesh, sharded.placements)


def is_writer() -> bool:
    """Say whether this process writes files: the only one, or the first of several."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
