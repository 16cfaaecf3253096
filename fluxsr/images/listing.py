"""Lists the pictures of a folder or a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fluxsr.images.formats import FORMATS, is_picture_name

_NAMED = 8


class Survey(NamedTuple):
    """The picture files of a folder, sorted; other files, with the reason if it isn't their ending; unreadable subfolders."""

    images: list[Path]
    left_out: list[str]
    unreadable: list[str]


def survey(folder: Path) -> Survey:
    """Look through a folder, to the bottom, also where links lead to.

    Hidden pictures and folders, other files and links back to a folder that is being looked through are left out.
    """
    images: list[Path] = []
    left_out: list[str] = []
    unreadable: list[str] = []
    inside = {str(folder): frozenset({_identity(folder)})}  # the folder and those above it, as the disk knows them

    def failed(error: OSError) -> None:
        unreadable.append(f"can't look into {error.filename}: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        below = Path(place).relative_to(folder)
        above = inside.pop(place, frozenset())
        for name in list(folders):
            inner = os.path.join(place, name)
            try:
                identity = _identity(inner)
            except OSError as error:
                failed(error)
                continue
            back = identity in above
            if back or name.startswith("."):
                folders.remove(name)
                left_out.append(f"{below / name} ({'a link to a folder around it' if back else 'hidden'})")
            else:
                inside[inner] = above | {identity}
        for name in files:
            path = below / name
            if not is_picture_name(path):
                if not name.startswith("."):
                    left_out.append(str(path))
            elif name.startswith("."):
                left_out.append(f"{path} (hidden)")
            elif not os.path.isfile(folder / path):
                left_out.append(f"{path} ({'a broken link' if os.path.islink(folder / path) else 'no file'})")
            else:
                images.append(path)
    return Survey([folder / path for path in sorted(images)], sorted(left_out), unreadable)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def list_images(folder: str | Path) -> list[Path]:
    """Return the picture files in a folder and its subfolders, sorted by their path below it.

    Links to folders are followed. Hidden files and folders, and links back to a folder around them, are left out.

    Raises:
        ValueError: If the folder is missing, holds no picture, or a part of it can't be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "doesn't exist"
        raise ValueError(f"the image folder {folder} {kind}")
    found = survey(folder)
    if found.unreadable:
        raise ValueError("; ".join(found.unreadable))
    if not found.images:
        raise ValueError(no_images(folder))
    return found.images


def no_images(folder: Path) -> str:
    """Return what is said of a folder without pictures."""
    return f"no images in {folder}: looked, in subfolders too, for files ending in {', '.join(FORMATS)}"


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
    """Return what fits a pattern, sorted; ``**`` stands for any subfolders.

    What exists under the very name is itself, and so are folders at the beginning: brackets in their names are no pattern.
    Where nothing fits, brackets are taken for what they are.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    parts = Path(pattern).parts
    known = next((n for n in range(len(parts) - 1, 0, -1) if os.path.isdir(os.path.join(*parts[:n]))), 0)
    start, rest = [glob.escape(part) for part in parts[:known]], list(parts[known:])
    for attempt in (rest, [part.replace("[", "[[]") for part in rest]):
        found = glob.glob(os.path.join(*start, *attempt), recursive=True)
        if found:
            return [Path(name) for name in sorted(found)]
    return []


def named(items: Iterable[object]) -> str:
    """Return names in one line, the first few of many."""
    names = [str(item) for item in items]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
