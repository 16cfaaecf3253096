"""Which pictures a folder or a pattern holds."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from fluxsr.images.formats import FORMATS, is_picture_name

_NAMED = 8


def list_images(folder: str | Path) -> list[Path]:
    """Return the picture files in a folder and its subfolders, sorted by their path below it.

    Hidden files and folders are left out.

    Args:
        folder: Folder to look through, to the bottom.

    Raises:
        ValueError: If the folder is missing or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "doesn't exist"
        raise ValueError(f"the image folder {folder} {kind}")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if is_picture_name(path))
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"no images in {folder}: looked, in subfolders too, for files ending in {', '.join(FORMATS)}")
    return paths


def images_by_name(place: str | Path) -> dict[str, Path]:
    """Return the pictures of a folder (with subfolders) or of a pattern such as ``'Set5/*_HR.png'``, by name.

    Raises:
        ValueError: If there are none.
    """
    if glob.has_magic(str(place)) and not Path(place).is_dir():
        found = {path.name: path for path in expand_pattern(place) if is_picture_name(path) and path.is_file()}
        if not found:
            raise ValueError(f"no image fits the pattern {place}")
        return found
    return {path.relative_to(place).as_posix(): path for path in list_images(place)}


def expand_pattern(pattern: str | Path) -> list[Path]:
    """Return what fits a pattern, sorted; ``**`` stands for any subfolders. What exists under the very name is itself."""
    if Path(pattern).exists():
        return [Path(pattern)]
    return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]


def named(items: Iterable[object]) -> str:
    """Return names in one line, the first few of many."""
    names = [str(item) for item in items]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
