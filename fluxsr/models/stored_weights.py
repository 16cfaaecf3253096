"""Reads a transformer's weights from disk one tensor at a time, so that one larger than the memory can be made smaller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import open_safetensors, read_header

_WHOLE = "diffusion_pytorch_model.safetensors"  # diffusers' name of a checkpoint in one piece


class StoredWeights:
    """The weights of a FLUX transformer on disk.

    Args:
        source: A :class:`fluxsr.models.sources.ModelSource` of a transformer, or its name. A hub's files are downloaded.

    Attributes:
        config: The transformer's arguments.
        files: The file of each tensor.

    Raises:
        ValueError: If the source can't be read, naming it and what to do.
    """

    def __init__(self, source: ModelSource | str) -> None:
        self.source = source if isinstance(source, ModelSource) else ModelSource(source)
        local = _downloaded(self.source)
        self.config = local.transformer_config()
        self.files: Mapping[str, Path]
        assert local.path is not None, "a transformer with weights is somewhere"
        if local.is_file:
            self.files = dict.fromkeys(local.header[0], local.path)
        else:
            with self.source.explain():
                self.files = _tensor_files(local.path / (local.transformer_subfolder() or ""))

    @property
    def dtype(self) -> str:
        """The torch name of the dtype that the weights are stored in."""
        return str(self.read("x_embedder.weight").dtype).removeprefix("torch.")

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU; it may be a view of the mapped file, which stays mapped as long as it lives.

        Raises:
            ValueError: If it is missing or its file is damaged.
        """
        if name not in self.files:
            raise ValueError(f"{self.source.name} has no tensor {name!r}: it is incomplete or no FLUX; get it again")
        # Opened anew each time: what one mapping has read counts as memory until it is closed.
        with open_safetensors(self.files[name]) as opened:
            return opened.get_tensor(name)


def _downloaded(source: ModelSource) -> ModelSource:
    """Return the source itself, or the folder that a hub's transformer is in now."""
    if source.kind != "hub":
        return source
    from huggingface_hub import snapshot_download

    with source.explain():
        return ModelSource(snapshot_download(source.name, revision=source.revision, allow_patterns="transformer/*"))


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Return the places of a checkpoint's tensors as diffusers writes them."""
    index = folder / f"{_WHOLE}.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in places.items()}
    return dict.fromkeys(read_header(folder / _WHOLE)[0], folder / _WHOLE)
