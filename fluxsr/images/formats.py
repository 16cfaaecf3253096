"""The one list of picture formats: their endings, and what each can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Format(NamedTuple):
    """What a file format holds.

    Attributes:
        name: Pillow's name of the format.
        options: Pillow's options for writing it.
        sixteen_bit: whether it holds 16 bit a channel.
        alpha: whether it holds an alpha channel.
        gray: whether it holds gray pictures as such, or as RGB.
        largest_side: most pixels along a side.
    """

    name: str
    options: dict[str, Any]
    sixteen_bit: bool = False
    alpha: bool = True
    gray: bool = True
    largest_side: int = 2**31 - 1


_PNG = Format("PNG", {}, sixteen_bit=True)
_JPEG = Format("JPEG", {"quality": 95}, alpha=False, largest_side=65500)
_TIFF = Format("TIFF", {}, sixteen_bit=True)

FORMATS: dict[str, Format] = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", {"quality": 95}, gray=False, largest_side=16383),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", {}, alpha=False),
}
"""Formats by the ending of a file's name: what is looked for in folders and what is written."""

# Contents decide what a file is read as. Others of Pillow's readers start foreign programs, or read what no camera writes.
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM")


def is_picture_name(path: Path) -> bool:
    """Whether a file's name ends like a picture's."""
    return path.suffix.lower() in FORMATS


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for.

    Raises:
        ValueError: if the ending is unknown.
    """
    if not is_picture_name(path):
        raise ValueError(f"can't write {path}: the name must end in one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def check_format(path: Path, height: int, width: int) -> None:
    """Check that a picture of a size can be written under a name.

    Raises:
        ValueError: if the ending is unknown, or the format takes fewer pixels.
    """
    kind = format_of(path)
    if max(height, width) > kind.largest_side:
        raise ValueError(
            f"can't write {path}: {kind.name} holds at most {kind.largest_side} pixels a side, not {width}x{height}; "
            "write PNG or TIFF"
        )
