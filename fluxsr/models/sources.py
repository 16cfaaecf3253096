"""What a model's name cannot be, said in one line before a hub is asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

# What comes with the package, and the hub ids that the configurations and the documentation name.
SHIPPED_NAMES = ("nano", "nano-student", "nano-flowsr", "pixel")
HUB_IDS = ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell", "madebyollin/taef1")

_KINDS = {
    "an image": (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"),
    "a configuration, which `fluxsr fit --config` takes": (".yaml", ".yml"),
    "a checkpoint of the whole training; beside it is the exported backbone.safetensors": (".ckpt",),
}
_EXPECTED = "give a shipped name, a .safetensors file, a folder in diffusers' layout or a hub id (owner/name)"


def model_or_shipped(model: str | Path | None, lora: str | Path | None) -> str:
    """Return the name of the model to load: the given one, else the shipped student.

    Raises:
        ValueError: if there is an adapter and no model: on another base than its own it would make another picture, silently.
    """
    if model is None and lora is not None:
        raise ValueError(
            f"{lora} is an adapter, which needs the base that it was trained on: give the model, too (nano for "
            "fluxsr_nano.yaml)"
        )
    return "nano-student" if model is None else str(model)


def check_source(source: str) -> None:
    """Check that a name may be a folder or a hub id; nothing is read but whether the path exists.

    Raises:
        ValueError: for a file, a path where nothing is, a name without an owner, or one that is all but a known one; with the
            known name that is nearest.
    """
    path = Path(source)
    if path.is_dir():
        return
    for kind, suffixes in _KINDS.items():
        if path.suffix.lower() in suffixes:
            raise ValueError(f"{source} is no model but {kind}: {_EXPECTED}")
    if path.is_file():
        raise ValueError(f"{source} is a file, and no .safetensors file that holds what is wanted here: {_EXPECTED}")
    if source in SHIPPED_NAMES:
        raise ValueError(
            f"{source!r} is shipped as one file: what is wanted here is a folder in diffusers' layout or a hub id"
        )
    if source.count("/") > 1 or source.startswith((".", "~", "/")):
        raise ValueError(
            f"there is no folder {source}: correct the path, or give a shipped name or a hub id (owner/name)"
        )
    near = _nearest(source)
    if "/" not in source:
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(SHIPPED_NAMES)}; else {_EXPECTED}"
        raise ValueError(f"there is no model and no folder {source!r}; {hint}")
    # A hub id that differs from a known one by a letter left out, doubled or swapped; somebody's copy has another owner.
    if near and source.lower() != near.lower() and SequenceMatcher(None, source, near).ratio() >= 0.97:
        raise ValueError(f"there is no model {source!r} that is known; did you mean {near!r}?")


def architecture_of(source: str | Path, names: Iterable[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the transformer's arguments that the header of a ``.safetensors`` file names.

    Args:
        source: the file, for the message.
        names: of its tensors.
        metadata: of its header.

    Raises:
        ValueError: if it names none, with what to do: most often it is an adapter, which needs its base.
    """
    if "architecture" in metadata:
        return dict(json.loads(metadata["architecture"]))
    if any(".lora_" in name for name in names):
        raise ValueError(
            f"{source} is a LoRA adapter, not a model: give --lora {source} --model BASE, with the base that it was trained on "
            "(nano for fluxsr_nano.yaml); in Python lora=, in a configuration lora_weights"
        )
    raise ValueError(
        f"{source} does not name its architecture, so it was not made by this library; give a folder in diffusers' layout"
    )


def _nearest(source: str) -> str | None:
    """Return the known name that a mistyped one is most like; an owner may be missing."""
    known = {name.lower(): name for name in SHIPPED_NAMES}
    for name in HUB_IDS:
        known |= {name.lower(): name, name.lower().split("/")[1]: name}
    close = get_close_matches(source.lower(), known, n=1)
    return known[close[0]] if close else None
