"""Checkpoints: read one tensor at a time, so that a model larger than the memory can be made smaller; and made our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fluxsr.models.files import explain_loading
from fluxsr.models.loading import SHIPPED, shipped_file
from fluxsr.models.sources import architecture_of

_WHOLE = "diffusion_pytorch_model.safetensors"  # diffusers' name of a checkpoint in one piece

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def own_memory(module: ModuleT) -> ModuleT:
    """Copy what diffusers left on the CPU as views of mapped files, in place, and return the module.

    A view lies at any address, and a matrix product at an odd one rounds otherwise: the same weights would not give the
    same bits. Nor does it bear that somebody writes the file anew. Quantised tensors are left alone.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and type(tensor.data) is torch.Tensor and type(tensor) in (Tensor, nn.Parameter):
            tensor.data = tensor.data.clone()
    return module


class Checkpoint:
    """The weights of a FLUX transformer on disk.

    Args:
        source: a hub id; a local folder in diffusers' layout, of a pipeline or of a transformer, in one file or sharded;
            a ``.safetensors`` file of this library; or the name of a shipped model.
        revision: of the hub repository.

    Attributes:
        config: the transformer's arguments.
        files: the file of each tensor.
        metadata: strings in the header of a single file.

    Raises:
        ValueError: if the source can't be read, naming it and what to do.
    """

    def __init__(self, source: str, revision: str | None = None) -> None:
        self.source = source
        self.config: dict[str, Any]
        self.files: Mapping[str, Path]
        self.metadata: dict[str, str] = {}
        if source in SHIPPED or source.endswith(".safetensors"):
            file = shipped_file(source) if source in SHIPPED else Path(source)
            names, self.metadata = _header(file)
            self.config = architecture_of(source, names, self.metadata)
            self.files = dict.fromkeys(names, file)
        else:
            with explain_loading(source):
                self.config, self.files = _read_folder(_local_folder(source, revision))
        self.config = {key: value for key, value in self.config.items() if not key.startswith("_")}

    @property
    def dtype(self) -> str:
        """The torch name of the dtype that the weights are stored in."""
        return str(self.read("x_embedder.weight").dtype).removeprefix("torch.")

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU; it may be a view of the mapped file, which stays mapped as long as it lives.

        Raises:
            ValueError: if it is missing or its file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if name not in self.files:
            raise ValueError(f"{self.source} has no tensor {name!r}: it is incomplete or no FLUX; get it again")
        file = self.files[name]
        try:
            # Opened anew each time: what one mapping has read counts as memory until it is closed.
            with safe_open(file, framework="pt") as opened:
                return opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is missing or damaged ({error}); make or download it again") from error


def _header(file: Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of a file's tensors, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys()), dict(opened.metadata() or {})
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or no safetensors file ({error}); make or download it again") from error


def _local_folder(source: str, revision: str | None) -> Path:
    """Return the transformer's folder, downloaded if it is not here."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, revision=revision, allow_patterns="transformer/*"))
    return folder / "transformer" if (folder / "transformer").is_dir() else folder


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return configuration and places of a checkpoint as diffusers writes them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    index = folder / f"{_WHOLE}.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return config, {name: folder / file for name, file in places.items()}
    return config, dict.fromkeys(_header(folder / _WHOLE)[0], folder / _WHOLE)
