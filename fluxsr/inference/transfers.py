"""Copies between host and device, from and to pinned memory where the device is a GPU of NVIDIA's."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; for CUDA it is copied while the host goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """Return a tensor of a device in the host's memory, complete."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    copy = tensor.to("cpu", non_blocking=True)  # to pinned memory, which is then what PyTorch takes
    torch.cuda.current_stream(tensor.device).synchronize()
    return copy
