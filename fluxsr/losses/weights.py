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


_TORCHVISION = "https://download.pytorch.org/models/"
_NANO = "LPIPS and TV-LPIPS do without it where net='nano' will do, which ships with the package"
BACKBONES = {
    "vgg": WeightSource(
        "VGG16 features",
        ("vgg16_features*.pth", "vgg16-397923af.pth"),
        "vgg16-397923af.pth",
        _TORCHVISION + "vgg16-397923af.pth",
        _NANO,
    ),
    "alex": WeightSource(
        "AlexNet features",
        ("alexnet_features*.pth", "alexnet-owt-7be5be79.pth"),
        "alexnet-owt-7be5be79.pth",
        _TORCHVISION + "alexnet-owt-7be5be79.pth",
        _NANO,
    ),
    "squeeze": WeightSource(
        "SqueezeNet 1.1 features",
        ("squeezenet1_1_features*.pth", "squeezenet1_1-b8a52dc0.pth"),
        "squeezenet1_1-b8a52dc0.pth",
        _TORCHVISION + "squeezenet1_1-b8a52dc0.pth",
        _NANO,
    ),
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

    Args:
        build: Maker of a module. It sees float32 as the default dtype and the CPU as the default device; or the meta device,
            where that is the current one.
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
    """Find and read one set of weights.

    Args:
        source: Weights to look for.
        path: A file, or a folder that is searched at any depth. None: ``FLUXSR_WEIGHTS``, then torch hub's cache,
            then a download.

    Returns:
        Tensors by name, on the CPU, floating ones in float32.

    Raises:
        ValueError: The file holds something else than tensors by name, or ``FLUXSR_WEIGHTS`` names no folder.
        FileNotFoundError: Nothing found and nothing downloadable; the message lists the places.
    """
    found = find_weights(source, path)
    return read_state_dict(found) if found is not None else _download(source)


def find_weights(source: WeightSource, path: str | Path | None = None) -> Path | None:
    """The file that :func:`load_weights` would read, or None where it would have to be downloaded.

    Raises:
        FileNotFoundError: An explicit ``path`` does not exist, or is a folder without a matching file.
        ValueError: ``FLUXSR_WEIGHTS`` is set and names no folder.
    """
    if path is not None:
        explicit = Path(path).expanduser()
        if explicit.is_dir():
            match = _search(explicit, source.patterns)
            if match is None:
                raise FileNotFoundError(f"no {' or '.join(source.patterns)} in {explicit} ({source.title})")
            return match
        if not explicit.is_file():
            raise FileNotFoundError(f"{source.title}: no such file or folder: {explicit}")
        return explicit
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if folder:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise ValueError(f"{ENVIRONMENT_VARIABLE}={folder!r} is not a folder: correct it or unset it")
        match = _search(root, source.patterns)
        if match is not None:
            return match
    if source.hub_name:
        cached = _hub_folder() / source.hub_name
        if cached.is_file():
            return cached
    return None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a ``torch.save`` file, without running code from it.

    Raises:
        ValueError: The file is damaged, needs the unsafe unpickler, or holds something else.
    """
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
    for pattern in patterns:
        # Sorted: which of several files is taken must not depend on the file system's order.
        for match in sorted(root.rglob(pattern)):
            if match.is_file():
                return match
    return None


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
        f"{' or '.join(source.patterns)} in the folder that {ENVIRONMENT_VARIABLE} names "
        + (f"({folder}): not there" if folder else "(not set)"),
    ]
    if source.hub_name:
        places.append(f"{_hub_folder() / source.hub_name}: not there")
    listed = "".join(f"\n  {number}. {place}" for number, place in enumerate(places, start=1))
    raise FileNotFoundError(
        f"{source.title} not found. Looked for:{listed}\nand {reason}." + (f" {source.hint}." if source.hint else "")
    )
