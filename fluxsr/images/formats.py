"""Lists the picture formats: their endings, what each can hold, and the first bytes by which they are recognized."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

QUALITY = 95
# From here on the colors keep their full resolution.
_FINE = 90
_ALL = frozenset({"profile", "EXIF", "XMP", "text"})


class Format(NamedTuple):
    """The kinds of picture that a file format holds.

    Attributes:
        name: Pillow's name of the format.
        written: Whether it is written, not only read.
        lossy: Whether it has a quality.
        sixteen_bit: Whether it holds 16 bit a channel.
        alpha: Whether it holds an alpha channel.
        gray: Whether it holds gray pictures as such, or as RGB.
        keeps: Kinds of data that it holds beside the pixels.
        largest_side: Most pixels along a side.
        largest_file: Most bytes of pixels.
    """

    name: str
    written: bool = True
    lossy: bool = False
    sixteen_bit: bool = False
    alpha: bool = True
    gray: bool = True
    keeps: frozenset[str] = _ALL
    largest_side: int = 2**31 - 1
    largest_file: int = 2**63

    def options(self, quality: int | None, lossless: bool) -> dict[str, Any]:
        """Return Pillow's options for a quality, 1 to 100; ``None``: 95, and WebP that was ``lossless`` stays so."""
        if not self.lossy:
            return {}
        if self.name == "WEBP" and lossless and quality is None:
            return {"lossless": True, "exact": True}
        quality = QUALITY if quality is None else quality
        fine = {"JPEG": (2, 0), "AVIF": ("4:2:0", "4:4:4")}.get(self.name)
        return {"quality": quality, **({"subsampling": fine[quality >= _FINE]} if fine else {})}


_PNG = Format("PNG", sixteen_bit=True)
_JPEG = Format("JPEG", lossy=True, alpha=False, largest_side=65500, keeps=_ALL - {"text"} | {"IPTC"})
_TIFF = Format("TIFF", sixteen_bit=True, keeps=_ALL - {"text"} | {"IPTC"})
# Of WebP and AVIF, the resolution stands in EXIF.
_WEBP = Format("WEBP", lossy=True, gray=False, largest_side=16383, keeps=_ALL - {"text"})
_AVIF = Format("AVIF", lossy=True, gray=False, largest_side=65535, keeps=_ALL - {"text"})
_HEIC = Format("HEIF", written=False)

FORMATS: dict[str, Format] = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jfif": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", alpha=False, keeps=frozenset(), largest_file=2**32 - 2**10),
    ".avif": _AVIF,
    ".gif": Format("GIF", written=False),
    ".heic": _HEIC,
    ".heif": _HEIC,
    ".jxl": Format("JXL", written=False),
}
"""Formats by the ending of a file's name: what is looked for in folders, and what is written."""

WRITTEN = tuple(ending for ending, kind in FORMATS.items() if kind.written)

# Contents decide what a file is read as. Others of Pillow's readers start foreign programs, or read what no camera writes.
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM")
# These are readers of further libraries, or of Pillow where it was built with them, and are asked for by the first bytes.
FURTHER = {"AVIF": "", "HEIF": "heic", "JXL": "jxl"}

# (where, bytes, name): what a file is that starts so.
_SIGNATURES = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIF"),
    (4, b"ftyphev", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"JXL ", "JXL"),
    (0, b"\xff\x0a", "JXL"),
)


def told_format(start: bytes) -> str:
    """Return the format that a file's first 16 bytes show, or an empty text."""
    # An AVIF may have the general brand first, and its own among those that follow.
    if start[4:12] == b"ftypmif1" and b"avif" in start:
        return "AVIF"
    return next((name for place, magic, name in _SIGNATURES if start[place:].startswith(magic)), "")


def is_picture_name(path: Path) -> bool:
    """Whether a file's name ends like a picture's."""
    return path.suffix.lower() in FORMATS


def format_of(path: Path) -> Format:
    """Return the format that is written under a name."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None or not kind.written:
        only = f": {kind.name} is only read" if kind else ""
        raise ValueError(f"can't write {path}{only}; the name must end in one of {', '.join(WRITTEN)}")
    if kind.name == "AVIF":
        from PIL import features

        if not features.check("avif"):
            raise ValueError(f"can't write {path}: this Pillow was built without AVIF; write PNG or WebP")
    return kind


def check_format(path: Path, height: int, width: int, bytes_per_pixel: int = 1) -> Format:
    """Return the format that is written under a name.

    Raises:
        ValueError: If the ending is unknown, or the format takes fewer pixels, or fewer bytes of them before compression.
    """
    kind = format_of(path)
    if max(height, width) > kind.largest_side:
        raise ValueError(
            f"can't write {path}: {kind.name} holds at most {kind.largest_side} pixels a side, not {width}x{height}; "
            "write PNG or TIFF"
        )
    if height * width * bytes_per_pixel > kind.largest_file:
        raise ValueError(
            f"can't write {path}: {width}x{height} pixels are more than the {kind.largest_file / 2**30:.0f} GiB that "
            f"{kind.name} holds; write PNG or TIFF"
        )
    return kind
