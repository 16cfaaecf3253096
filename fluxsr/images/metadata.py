"""Defines a picture with all that its file says: orientation, EXIF, XMP, IPTC, resolution, text; reads and writes that."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fluxsr.images.convert import Pixels

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_INCHES, _CENTIMETERS = 2, 3
_MAKER_NOTE = 0x927C
# Of a TIFF, EXIF is the whole directory, with where its pixels lie: only what describes the photo is carried over.
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_DESCRIPTION = 0x010E
# Descriptions that scientific writers make for themselves: they say how the file's pixels lie, and no longer do.
_LAYOUTS = ('{"shape"', "ImageJ=", "<?xml", "<OME")
_RATINGS = (0x4746, 0x4749)
_WINDOWS = (0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F)  # title, comment, author, keywords, subject
_TELLING_TAGS = (*_TEXTS, *_RATINGS, *_WINDOWS, EXIF_IFD, GPS_IFD)

# IPTC: its tag in TIFF, its number among Photoshop's resources in JPEG, and the byte that each of its records begins with.
IPTC, _IPTC_RESOURCE, _IPTC_MARK = 33723, 0x0404, b"\x1c"
LONGEST_SEGMENT = 65533  # bytes of a JPEG's

# How XMP writes a property, as an attribute or as an element.
_XMP_PROPERTY = rb"""(\b%s\s*=\s*["']|<%s>\s*)\d+"""
_XMP_SIZES = {b"tiff:ImageWidth": 1, b"exif:PixelXDimension": 1, b"tiff:ImageLength": 0, b"exif:PixelYDimension": 0}
# A directory of what once followed the picture in its file: gain maps, films, depths. They aren't there anymore.
_XMP_OF_FOLLOWING_DATA = (b"Container:Directory", b"hdrgm:Version", b"GCamera:MicroVideo")


@dataclass(frozen=True)
class Picture:
    """A picture as it was in its file, upright.

    Attributes:
        pixels: ``(H, W, C)``, uint8 or uint16, C from gray (1) to RGB and alpha (4).
        icc_profile: The profile that describes the pixels, if any.
        exif: EXIF data of the camera; its orientation has been applied.
        dpi: Resolution along x and y, in dots per inch.
        frames: Number of frames in the file; ``pixels`` is the first.
        xmp: Captions, ratings and keywords, as XML.
        text: Named texts, such as the ``parameters`` that a generated picture was made with.
        cicp: Primaries, transfer, matrix and range of the colors as video has them; they go before the profile.
        lossless: Whether the file kept its pixels exactly, in a format that also can lose some.
        iptc: Records of IPTC, as agencies write them (caption, byline, rights).
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    frames: int = 1
    xmp: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    cicp: bytes | None = None
    lossless: bool = False
    iptc: bytes | None = None


def readable_exif(image: Image.Image) -> Image.Exif:
    """Return an image's EXIF; an empty one where it is damaged, which must not cost the picture."""
    exif = Image.Exif()
    with suppress(Exception):  # decoders of damaged blocks raise nearly anything
        exif = image.getexif()
        for directory in (EXIF_IFD, GPS_IFD):  # of a TIFF, they are read from the file when they are asked for
            exif.get_ifd(directory)
    return exif


def lies_on_its_side(orientation: int) -> bool:
    """Whether an EXIF orientation exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, 1 to 8; anything else is taken for 1."""
    if lies_on_its_side(orientation):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def resolution(info: Mapping[Any, Any], exif: Image.Exif) -> tuple[float, float] | None:
    """Return dots per inch along x and y, if Pillow's record of the file or its EXIF says so and the numbers make sense."""
    told = info.get("dpi")
    if told is None and _X_RESOLUTION in exif:
        told = exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION)
        if exif.get(_RESOLUTION_UNIT, _INCHES) not in (_INCHES, _CENTIMETERS):
            return None
    factor = 2.54 if "dpi" not in info and exif.get(_RESOLUTION_UNIT) == _CENTIMETERS else 1.0
    try:
        x, y = (float(value) * factor for value in told)  # type: ignore[union-attr]  # None is a TypeError
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


class _Raw(str):
    """Text of EXIF, which Pillow reads as Latin-1, whatever it is, and writes as ASCII; so it goes out as it came in."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        """Return the bytes that were read; UTF-8 of what was never in a file."""
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:
            return super().encode("utf-8")


def exif_to_write(
    exif: Image.Exif | None,
    height: int,
    width: int,
    dpi: tuple[float, float] | None,
    longest: int | None,
    orientation: bool,
) -> tuple[bytes | None, list[str]]:
    """Return the EXIF block of a result, and what had to be left out of it.

    It has the tags worth keeping, orientation 1 where ``orientation`` is to be said, and the new size where the old one stood.
    It starts with ``Exif\\0\\0``, as Pillow and JPEG have it. ``dpi`` is for formats that have no other place for it, and
    ``longest`` the most bytes that the format takes.
    """
    exif = exif if exif is not None else Image.Exif()
    kept: dict[int, Any] = {}
    for tag in _TELLING_TAGS:
        with suppress(Exception), warnings.catch_warnings():  # an inner directory of a damaged file
            warnings.simplefilter("ignore")
            value = dict(exif.get_ifd(tag)) if tag in (EXIF_IFD, GPS_IFD) else exif.get(tag)
            if value and not (tag == _DESCRIPTION and str(value).startswith(_LAYOUTS)):
                kept[tag] = value
    if _EXIF_WIDTH in kept.get(EXIF_IFD, {}):
        kept[EXIF_IFD] |= {_EXIF_WIDTH: width, _EXIF_HEIGHT: height}
    if kept and orientation:
        kept[ORIENTATION] = 1
    if dpi:
        kept |= {_X_RESOLUTION: dpi[0], _Y_RESOLUTION: dpi[1], _RESOLUTION_UNIT: _INCHES}
    inner = {tag: value for tag, value in kept.get(EXIF_IFD, {}).items() if tag != _MAKER_NOTE}
    # What goes first when there is too much, or what can't be written: the maker's notes, then all but the texts, then all.
    smaller = (
        ("", kept),
        ("the maker's notes in EXIF", kept | ({EXIF_IFD: inner} if inner else {})),
        ("most of EXIF", {tag: value for tag, value in kept.items() if not isinstance(value, dict)}),
    )
    for name, tags in smaller:
        block = _exif_block(tags) if tags else None
        if block is not None and (longest is None or len(block) <= longest):
            return block, [name] if name else []
    return None, ["EXIF"] if kept else []


def _exif_block(tags: Mapping[int, Any]) -> bytes | None:
    block = Image.Exif()
    for tag, value in tags.items():
        block[tag] = _raw(value)
    with suppress(Exception):  # tags of a damaged file may not be writable
        return block.tobytes()
    return None


def exif_tags(block: bytes) -> dict[int, Any]:
    """Return the tags of an EXIF block as a TIFF's directory takes them; inner directories are dictionaries."""
    exif = Image.Exif()
    exif.load(block)
    return {tag: _raw(exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else value) for tag, value in exif.items()}


def _raw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {tag: _raw(inner) for tag, inner in value.items()}
    return _Raw(value) if isinstance(value, str) else value


def xmp_to_write(xmp: bytes | None, height: int, width: int) -> bytes | None:
    """Return the XMP of a result: orientation 1, the new size; ``None`` where it describes data that followed the picture."""
    if not xmp or any(word in xmp for word in _XMP_OF_FOLLOWING_DATA):
        return None
    xmp = _with_property(xmp, b"tiff:Orientation", 1)
    for name, axis in _XMP_SIZES.items():
        xmp = _with_property(xmp, name, (height, width)[axis])
    return xmp


def _with_property(xmp: bytes, name: bytes, value: int) -> bytes:
    return re.sub(_XMP_PROPERTY % (name, name), lambda found: found[1] + str(value).encode(), xmp)


def xmp_of(info: Mapping[Any, Any]) -> bytes | None:
    """Return the XMP that Pillow found in a file."""
    xmp = info.get("xmp")
    return xmp.rstrip(b"\0") or None if isinstance(xmp, bytes) else None


def iptc_of(image: Image.Image) -> bytes | None:
    """Return the IPTC records of a loaded JPEG or TIFF."""
    found: Any = None
    with suppress(Exception):  # blocks of damaged files
        if image.format in ("JPEG", "MPO"):
            found = image.info.get("photoshop", {}).get(_IPTC_RESOURCE)
        elif image.format == "TIFF":
            # Its bytes as they stand: many writers call them numbers, of which Pillow gives the first.
            found = image.tag_v2._tagdata.get(IPTC)  # type: ignore[attr-defined]
    return found if isinstance(found, bytes) and found.startswith(_IPTC_MARK) else None


def iptc_segment(iptc: bytes) -> bytes:
    """Return the segment of a JPEG that holds IPTC records, or nothing where they are too long for one."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) <= LONGEST_SEGMENT else b""


def texts_of(image: Image.Image) -> dict[str, str]:
    """Return the named texts of a loaded image: a PNG's own, and the comments of GIF and JPEG."""
    texts = dict(getattr(image, "text", {}) or {}) if image.format == "PNG" else {}
    # These hold EXIF and XMP in the ways of old writers, and Pillow has read them.
    texts = {name: text for name, text in texts.items() if not name.startswith(("Raw profile type", "XML:com.adobe"))}
    comment = image.info.get("comment")
    if isinstance(comment, bytes) and comment.strip(b"\0 "):
        try:
            texts["Comment"] = comment.decode("utf-8")
        except UnicodeDecodeError:
            texts["Comment"] = comment.decode("latin-1")
    return texts
