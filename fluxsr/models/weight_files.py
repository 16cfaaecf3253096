"""Reads and writes files of weights: safetensors only, written whole or not at all, with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fluxsr.atomic import replacing

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# As safetensors' headers name them.
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to ``path``: to a temporary name beside it first, then renamed.

    Raises:
        ValueError: If the file can't be written (a full disk, a missing permission), naming it.
    """
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
                dict(metadata or {}),
            )
            os.chmod(temporary, 0o644)  # safetensors makes files that only their owner can read
    except Exception as error:
        # safetensors wraps the operating system's error in one of its own.
        raise ValueError(
            f"can't write {path}: {error}; nothing was left behind, free space or choose another place"
        ) from error


def read_safetensors(path: str | Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Args:
        path: The file.
        device: Device of the tensors. On ``meta`` only the header is read.

    Raises:
        ValueError: If the file is missing or damaged, naming it.
    """
    meta = torch.device(device).type == "meta"
    # Whatever the default device is: older releases of safetensors read onto it.
    with torch.device("cpu"), open_safetensors(path) as file:
        read = partial(_without_data, file) if meta else file.get_tensor
        tensors = {name: read(name).to(device) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_header(path: str | Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of a safetensors file's tensors, and its metadata.

    Raises:
        ValueError: If the file is missing or damaged, naming it.
    """
    with open_safetensors(path) as file:
        return list(file.keys()), dict(file.metadata() or {})


@contextmanager
def open_safetensors(path: str | Path) -> Iterator[Any]:
    """Open a file in safetensors' own way.

    Raises:
        ValueError: If the file is missing, or it or what the body reads is damaged.
    """
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


def _without_data(file: Any, name: str) -> Tensor:
    entry = file.get_slice(name)
    # A dtype that is not listed holds no weights of a network: its size alone may matter.
    return torch.empty(entry.get_shape(), dtype=_DTYPES.get(entry.get_dtype(), torch.float32), device="meta")
