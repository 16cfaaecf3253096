"""Reads and writes files of weights, safetensors only, and says what a weight is called in them and which weights these are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fluxsr.atomic import replacing

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# What torch.compile, and PyTorch's wrapper of activation checkpointing, add to a name.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")
_PIECES, _PIECE = 16, 4096  # of a large tensor, in a digest


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to ``path``, whole or not at all."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, dict(metadata))
            os.chmod(temporary, 0o644)  # safetensors makes files that only their owner can read
    except Exception as error:  # safetensors wraps the operating system's error in one of its own
        raise ValueError(f"can't write {path}: {error}; free space or choose another place") from error


def read_safetensors(path: str | Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file; on ``meta`` only its header is read."""
    # Whatever the default device is: older releases of safetensors read onto it. Tensors are views of the mapped file.
    with torch.device("cpu"), open_safetensors(path) as file:
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_header(path: str | Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of a file's tensors, and its metadata; errors as in :func:`read_safetensors`."""
    with open_safetensors(path) as file:
        return list(file.keys()), dict(file.metadata() or {})


@contextmanager
def open_safetensors(path: str | Path) -> Iterator[Any]:
    """Open a file in safetensors' own way; errors as in :func:`read_safetensors`, of what the body reads, too."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); make or download it again") from error


def own_memory(module: ModuleT) -> ModuleT:
    """Copy what diffusers left on the CPU as views of mapped files, in place, and return the module.

    A view lies at any address, and a matrix product at an odd one rounds otherwise: the same weights would not give the
    same bits. Nor does it bear that somebody writes the file anew. Quantized tensors are left alone.

    Where there is an accelerator, nothing is copied. The weights are on their way to it, and until then all processes of
    a machine read the same pages of the file. Eight private copies of 24 GB would not fit into most machines.
    """
    if torch.accelerator.is_available():
        return module
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and type(tensor.data) is torch.Tensor and type(tensor) in (Tensor, nn.Parameter):
            tensor.data = tensor.data.clone()
    return module


def public_name(name: str) -> str:
    """Return a weight's name without wrappers: ``backbone._orig_mod.linear.weight`` is ``backbone.linear.weight``.

    Checkpoints, adapters and exported files hold these names, so a compiled model and a plain one read the same files.
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside of torch.compile's wrapper, or the module itself."""
    return getattr(module, "_orig_mod", module)


def public_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's parameters by their public names."""
    return {public_name(name): parameter for name, parameter in module.named_parameters()}


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


def weights_digest(module: nn.Module, names: Collection[str] | None = None, *, rounded: bool = False) -> str:
    """Return a short digest of the parameters (``names`` of them, or all), the same on every device.

    Of a large tensor evenly spaced pieces are read: 12 B weights through a hash would take minutes, and weights that differ
    do so nearly everywhere. Quantized weights, which have no plain bytes, count by name, shape and dtype. ``rounded`` to
    bfloat16, the same weights in a wider dtype have the same digest.
    """
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if names is not None and name not in names:
            continue
        plain = parameter.detach()
        name = name.replace(".base_layer", "")  # where peft keeps the weights that it adapts
        digest.update(f"{name}:{tuple(parameter.shape)}:{torch.bfloat16 if rounded else parameter.dtype}".encode())
        if type(plain) not in (torch.Tensor, nn.Parameter) or plain.is_meta:
            continue
        flat = plain.reshape(-1)
        large = len(flat) > _PIECES * _PIECE
        for start in range(0, len(flat), len(flat) // _PIECES) if large else (0,):
            piece = flat[start : start + _PIECE] if large else flat
            piece = piece.bfloat16() if rounded else piece
            digest.update(piece.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return f"bytes:{digest.hexdigest()[:16]}"
