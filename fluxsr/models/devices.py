"""Chooses the device and the dtype that a model runs on, by the names that users give."""

from __future__ import annotations

from typing import Literal, get_args

import torch

DType = Literal["float32", "bfloat16", "float16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return a device that is there; for ``auto`` the first of cuda, mps and cpu."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there.get(name.split(":")[0], False):
        found = ", ".join(kind for kind, found in there.items() if found)
        raise ValueError(f"there is no device {name!r} here: give auto or one of {found}")
    return torch.device(name)


def check_torch(oldest: str, feature: str) -> None:
    """Raise a ``ValueError`` where torch is older than a feature needs; all else works with torch 2.6."""
    found = torch.__version__.split("+")[0]
    if tuple(map(int, found.split(".")[:2])) < tuple(map(int, oldest.split("."))):
        raise ValueError(f"{feature} needs torch {oldest} or newer, and this is torch {found}: pip install -U torch")


def check_dtype(name: str) -> None:
    """Raise a ValueError unless ``name`` is a dtype that models run in."""
    if name not in get_args(DType):
        raise ValueError(f"dtype must be one of {', '.join(get_args(DType))}, got {name!r}")
