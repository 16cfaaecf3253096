"""What lies in ComfyUI's model folders, by the names that its menus show."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from fluxsr.models.known_names import SHIPPED

FOLDER = "fluxsr"
NONE = "none"
# A folder that has one of these is a pipeline, or a base, in diffusers' layout.
_MARKS = ("model_index.json", "transformer/config.json")

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def model_names() -> list[str]:
    """Return what the menu of models offers: the shipped ones, then files and folders below ``models/fluxsr``."""
    return [*SHIPPED, *_found(_is_model)]


def adapter_names() -> list[str]:
    """Return what the menu of adapters offers: none, files below ``models/fluxsr``, and ComfyUI's own LoRAs."""
    return [NONE, *_found(_is_weights), *folder_paths.get_filename_list("loras")]


def file_names() -> list[str]:
    """Return what the menu of prompts offers: none, and files below ``models/fluxsr``."""
    return [NONE, *_found(_is_weights)]


def path_of(name: str) -> str | None:
    """Return what fluxsr loads for an entry of a menu: a shipped name as it is, else a path; nothing for ``none``.

    Raises:
        ValueError: if it is not there any more.
    """
    if name == NONE:
        return None
    if name in SHIPPED:
        return name
    for root in _roots():
        if (root / name).exists():
            return str(root / name)
    lora = folder_paths.get_full_path("loras", name)
    if lora is None:
        raise ValueError(
            f"{name} is not in models/{FOLDER} any more: refresh the node definitions (R), and choose again"
        )
    return str(lora)


def _roots() -> list[Path]:
    return [Path(root) for root in folder_paths.get_folder_paths(FOLDER)]


def _found(wanted) -> list[str]:
    paths = [(root, path) for root in _roots() if root.is_dir() for path in sorted(root.rglob("*")) if wanted(path)]
    return [path.relative_to(root).as_posix() for root, path in paths]


def _is_weights(path: Path) -> bool:
    inside = any((parent / mark).is_file() for parent in path.parents[:3] for mark in _MARKS)
    return path.suffix == ".safetensors" and path.is_file() and not inside


def _is_model(path: Path) -> bool:
    return _is_weights(path) or any((path / mark).is_file() for mark in _MARKS)
