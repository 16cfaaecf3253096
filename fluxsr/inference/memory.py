"""What the device has: which one there is, how large its tiles may be, and what running out of memory looks like."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch

# Bytes of activations per pixel of a tile, above what was measured: 0.7 KB for nano, 5.6 KB for FLUX's autoencoder in float32.
BYTES_PER_PIXEL = {"pixel": 2048, "latent": 8192}
_UNKNOWN = 4 * 2**30
DType = Literal["float32", "bfloat16", "float16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return a device that is there; for ``auto`` the first of cuda, mps and cpu.

    Raises:
        ValueError: if the device is unknown or not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there.get(name.split(":")[0], False):
        found = ", ".join(kind for kind, found in there.items() if found)
        raise ValueError(f"there is no device {name!r} here: give auto or one of {found}")
    return torch.device(name)


def check_dtype(name: str) -> None:
    """Raise a ValueError unless ``name`` is a dtype that models run in."""
    if name not in get_args(DType):
        raise ValueError(f"dtype must be one of {', '.join(get_args(DType))}, got {name!r}")


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device now, a cautious guess where the system does not tell."""
    if device.type == "cuda":
        # What torch holds back for later tensors is free to us as well.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN


def affordable_tile(device: torch.device, bytes_per_pixel: int, smallest: int, largest: int) -> int:
    """Return the side in pixels of the largest square tile, ``smallest`` doubled so many times, for half the free memory."""
    side = smallest
    while side * 2 <= largest and (side * 2) ** 2 * bytes_per_pixel <= free_memory(device) // 2:
        side *= 2
    return side


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left; each backend has its own words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
