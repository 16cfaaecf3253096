"""Finds the configurations that come with the package by name: ``fluxsr_nano``, ``memory/48gb``.

Their one home is ``examples/configs`` of the repository; the wheel carries a copy of that folder as ``fluxsr/configs``.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED, _SOURCE = _PACKAGE / "configs", _PACKAGE.parent / "examples" / "configs"


def config_folder() -> Path:
    """Return the folder of the shipped configurations: that of the wheel, or of the source where it runs from there."""
    return _INSTALLED if _INSTALLED.is_dir() else _SOURCE


def shipped_configs() -> dict[str, Path]:
    """Return the file of each shipped configuration by its name, which is its path without ``.yaml``."""
    folder = config_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def config_path(name: str) -> Path:
    """Return the file that a name after ``--config`` means: a file of the user's own, else the shipped one of that name.

    What is neither comes back as a path, which nothing may be at.
    """
    path = Path(name).expanduser()
    return path if path.is_file() else shipped_configs().get(name, path)


def headline(path: Path) -> str:
    """Return what a configuration says of itself: the first sentence of its comment."""
    first = path.read_text("utf-8").partition("\n")[0]
    return re.split(r"(?<=\w\w)\.\s", first.removeprefix("#").strip())[0].rstrip(".")
