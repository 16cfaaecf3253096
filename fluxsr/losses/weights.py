"""Finds trained weights: an explicit path, ``FLUXSR_WEIGHTS``, torch hub's cache, a download.

Nothing is read with the unsafe unpickler, and nothing is printed. Files may hold more than the convolutions
(torchvision's own checkpoints do) and may be stored in half precision: callers take what they need, in float32.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

ENVIRONMENT_VARIABLE = "FLUXSR_WEIGHTS"
Module = TypeVar("Module", bound=nn.Module)


class WeightSource(NamedTuple):
    """What one set of weights is called in the places where it may lie.

    ``patterns`` are file globs for ``FLUXSR_WEIGHTS``, tried in order. ``hub_name`` is the file name in torch hub's cache.
    ``url`` is where it is downloaded from (an empty string: there is no such place). ``hint`` says where else to get it.
    """

    title: str
    patterns: tuple[str, ...]
    hub_name: str = ""
    url: str = ""
    hint: str = ""


def _torchvision(title: str, stem: str, file: str) -> WeightSource:
    url = f"https://download.pytorch.org/models/{file}"
    hint = "LPIPS and TV-LPIPS do without it where net='nano' will do, which ships with the package"
    return WeightSource(title, (f"{stem}_features*.pth", file), file, url, hint)


BACKBONES = {
    "vgg": _torchvision("VGG16 features", "vgg16", "vgg16-397923af.pth"),
    "alex": _torchvision("AlexNet features", "alexnet", "alexnet-owt-7be5be79.pth"),
    "squeeze": _torchvision("SqueezeNet 1.1 features", "squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}
DISTS_HEADS = WeightSource(
    "DISTS alpha and beta",
    ("dists*/weights.pt", "DISTS_pytorch/weights.pt", "dists_weights*.pt"),
    "dists_weights.pt",
    hint="They are in the authors' package dists-pytorch (MIT): `pip install --no-deps --target FOLDER dists-pytorch`, then "
    f"name FOLDER in {ENVIRONMENT_VARIABLE}",
)


def without_values() -> bool:
    """Say whether new tensors have shapes alone, as under ``torch.device("meta")``: then there is nothing to read."""
    return torch.empty(0).is_meta


def built_exactly(build: Callable[[], Module]) -> Module:
    """Return the module that ``build`` makes, with the same values wherever it is called, on the current default device.

    Four things must not change trained weights. A default dtype must not round them (Lightning builds a module of
    ``bf16-true`` under bfloat16). A ``with torch.device(...)`` block must not scatter them over devices.
    ``torch.inference_mode()`` must not make them unfit for a gradient. And building must not shift anybody's random numbers.
    """
    place, dtype = torch.empty(0).device, torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            with torch.device("meta" if place.type == "meta" else "cpu"):
                module = build()
            return module.to(place)
    finally:
        torch.set_default_dtype(dtype)


def load_weights(source: WeightSource, path: str | Path | None = None) -> dict[str, Tensor]:
    """Find and read one set of weights: tensors by name, on the CPU, floating ones in float32.

    Args:
        source: Weights to look for.
        path: A file, or a folder that is searched at any depth. None: ``FLUXSR_WEIGHTS``, then torch hub's cache,
            then a download.

    Raises:
        ValueError: The file holds something else than tensors by name, or ``FLUXSR_WEIGHTS`` names no folder.
        FileNotFoundError: Nothing found and nothing downloadable; the message lists the places.
    """
    found = find_weights(source, path)
    return read_state_dict(found) if found is not None else _download(source)


def find_weights(source: WeightSource, path: str | Path | None = None) -> Path | None:
    """Return the file that :func:`load_weights` would read, or None where it would have to be downloaded."""
    if path is not None:
        explicit = Path(path).expanduser()
        match = _search(explicit, source.patterns) if explicit.is_dir() else explicit
        if match is None or not match.is_file():
            wanted = f"no {' or '.join(source.patterns)} in" if match is None else "no such file or folder:"
            raise FileNotFoundError(f"{source.title}: {wanted} {explicit}")
        return match
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if folder:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise ValueError(f"{ENVIRONMENT_VARIABLE}={folder!r} is not a folder: correct it or unset it")
        match = _search(root, source.patterns)
        if match is not None:
            return match
    cached = _hub_folder() / source.hub_name
    return cached if cached.is_file() else None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a ``torch.save`` file, without running code from it; a ``ValueError`` for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise ValueError(f"{path} can't be read as a file of weights ({type(error).__name__}): replace it") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} does not hold tensors by name but a {type(content).__name__}: give a state dict")
    return {name: value.float() if value.is_floating_point() else value for name, value in content.items()}


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _search(root: Path, patterns: tuple[str, ...]) -> Path | None:
    # Sorted: which of several files is taken must not depend on the file system's order.
    return next((match for pattern in patterns for match in sorted(root.rglob(pattern)) if match.is_file()), None)


def _download(source: WeightSource) -> dict[str, Tensor]:
    reason = "no download address is known for it"
    if source.url:
        try:
            content = torch.hub.load_state_dict_from_url(
                source.url, map_location="cpu", progress=sys.stderr.isatty(), check_hash=True, weights_only=True
            )
            return {name: value.float() for name, value in content.items()}
        except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors, a wrong hash a RuntimeError
            reason = f"downloading {source.url} failed: {error}"
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    places = [
        "an explicit path (weights=...): none given",
        f"{' or '.join(source.patterns)} in {ENVIRONMENT_VARIABLE}'s folder ({folder or 'not set'})",
        f"{_hub_folder() / source.hub_name}: not there",
    ]
    listed = "".join(f"\n  {number}. {place}" for number, place in enumerate(places, start=1))
    raise FileNotFoundError(f"{source.title} not found. Looked for:{listed}\nand {reason}. {source.hint}".rstrip())
