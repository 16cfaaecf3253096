"""Asks the device for its free memory, chooses the size of tiles, and recognizes out-of-memory errors."""

from __future__ import annotations

import os

import torch
from torch import nn

from fluxsr.inference.form import RESERVE
from fluxsr.models import PixelAutoencoder
from fluxsr.protocols import Autoencoder, VelocityModel
from fluxsr.sizes import gigabytes, memory_size

# Bytes of activations per pixel of a tile in float32, above what was measured: 0.7 KB for nano, 5.6 KB for FLUX's autoencoder.
BYTES_PER_PIXEL = {"pixel": 2048, "latent": 8192}
_UNKNOWN = 4 * 2**30


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device now, a cautious guess where the system does not report it."""
    if device.type == "cuda":
        # What torch holds back for later tensors is free to us as well.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN


def memory_limit(memory: str, device: torch.device) -> int:
    """Return how many bytes may be used of a memory (12GB, 16GiB, auto: what is free), without the device's own needs."""
    size = free_memory(device) if memory == "auto" else memory_size(memory)
    limit = size - (RESERVE if device.type == "cuda" else 0)
    if limit <= 0:
        raise ValueError(f"a memory of {memory} leaves nothing: {gigabytes(RESERVE)} are the device's own")
    return limit


def measured_peak(device: torch.device) -> int | None:
    """Return the most bytes of tensors that were on a GPU so far; nothing for devices that don't count them."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def bytes_per_pixel(velocity: VelocityModel, autoencoder: Autoencoder) -> int:
    """Return the bytes of activations for each pixel of a tile; activations have the weights' dtype."""
    parameter = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
    dtype = torch.float32 if parameter is None or not parameter.is_floating_point() else parameter.dtype
    return BYTES_PER_PIXEL["pixel" if isinstance(autoencoder, PixelAutoencoder) else "latent"] * dtype.itemsize // 4


def affordable_tile(device: torch.device, pixel_bytes: int, smallest: int, largest: int) -> int:
    """Return the side in pixels of a square tile for half the free memory: ``largest``, or else ``smallest`` doubled."""
    if largest**2 * pixel_bytes <= free_memory(device) // 2:
        return largest  # which need not be a doubling: a window of 192 pixels is no reason to work with 128
    side = smallest
    while side * 2 <= largest and (side * 2) ** 2 * pixel_bytes <= free_memory(device) // 2:
        side *= 2
    return side


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left; each backend has its own words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
