"""Picture files with what belongs to them: 8 and 16 bit, alpha, orientation, ICC profile, EXIF and resolution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fluxsr.atomic import replacing
from fluxsr.inference.deep import read_deep_colours, write_deep_png, write_tiff
from fluxsr.inference.kinds import Pixels, from_pil, has_alpha, to_pil

# What is written, by suffix, and Pillow's options for it.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
_LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
# Others of Pillow's readers start foreign programs, or read what no camera writes.
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM")

_ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _EXIF_WIDTH, _EXIF_HEIGHT = 0x8769, 0x8825, 0xA002, 0xA003
# Of a TIFF, EXIF is the whole directory, with where its pixels lie: only what tells about the photo is carried over.
_TELLING_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, _EXIF_IFD, _GPS_IFD)


@dataclass(frozen=True)
class Picture:
    """A picture as it was in its file, upright.

    Attributes:
        pixels: ``(H, W, C)``, uint8 or uint16, C from gray (1) to RGB and alpha (4).
        icc_profile: the profile that describes the pixels, if any.
        exif: what the camera wrote, with orientation 1.
        dpi: resolution along x and y, in dots per inch.
        frames: how many the file had; ``pixels`` is the first.
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    frames: int = 1


def read_picture(path: str | Path, max_pixels: int = 100_000_000) -> Picture:
    """Read a picture, of which the camera's orientation is applied.

    The contents decide on the format, not the suffix. CMYK becomes RGB, palettes RGB or RGBA, bilevel images gray.

    Args:
        path: of the file.
        max_pixels: height times width, at most.

    Raises:
        ValueError: if the file is missing, empty, cut off, damaged, of no known format, or larger than ``max_pixels``,
            which is known from its header, before anything is decoded. It names the file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, not an image file")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        with _no_warnings(), path.open("rb") as file, _opened(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _TooLarge(
                    f"{path} has {width}x{height} pixels, {width * height / 1e6:.1f} million: more than the limit of "
                    f"{max_pixels / 1e6:g}; if you trust it, allow more with --max-pixels"
                )
            image.load()
            pixels, profile_fits = from_pil(image)
            if image.mode in ("RGB", "RGBA", "LA"):
                pixels = read_deep_colours(path, image, pixels)
            exif = image.getexif()
            # Pillow and OpenCV both turn a TIFF while they read it, and Pillow then drops the tag.
            pixels = _upright(pixels, exif.get(_ORIENTATION, 1))
            return Picture(
                pixels,
                image.info.get("icc_profile") if profile_fits else None,
                exif if len(exif) else None,
                _resolution(image),
                getattr(image, "n_frames", 1) if image.format != "MPO" else 1,
            )
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except _TooLarge as error:
        raise ValueError(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        # Damaged files make Pillow's decoders raise nearly anything: KeyError, struct.error, ZeroDivisionError.
        raise ValueError(f"can't read {path}: {_first_line(error)}") from error


def write_picture(path: str | Path, picture: Picture) -> None:
    """Write a picture in the format of the path's suffix; it appears under its name only when it is complete.

    JPEG, WebP and BMP take 8 bit. JPEG and BMP have no alpha: transparent pixels are laid on white.

    Args:
        path: whose suffix decides on the format.
        picture: pixels of 8 or 16 bit, with what belongs to them.

    Raises:
        ValueError: for an unknown suffix, or more pixels than the format takes.
        OSError: if it can't be written.
    """
    path = Path(path)
    pixels = picture.pixels
    check_format(path, *pixels.shape[:2])
    kind, options = FORMATS[path.suffix.lower()]
    exif = _telling(picture.exif, pixels.shape[1], pixels.shape[0])
    with replacing(path) as temporary, temporary.open("w+b") as file:
        if pixels.dtype == np.uint16 and kind == "PNG":
            write_deep_png(file, pixels, picture.icc_profile, exif.tobytes()[6:] if len(exif) else None, picture.dpi)
        elif kind == "TIFF":
            write_tiff(file, pixels, picture.icc_profile, exif, picture.dpi)
        else:
            metadata = {"icc_profile": picture.icc_profile, "exif": exif if len(exif) else None, "dpi": picture.dpi}
            known = {name: value for name, value in metadata.items() if value is not None}
            to_pil(_fitting(pixels, kind)).save(file, format=kind, **options, **known)


def check_format(path: Path, height: int, width: int) -> None:
    """Check that a picture of a size can be written under a name.

    Raises:
        ValueError: if the suffix is unknown, or the format takes fewer pixels.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"can't write {path}: the name must end in one of {', '.join(FORMATS)}")
    kind, _ = FORMATS[path.suffix.lower()]
    largest = _LARGEST_SIDE.get(kind, 2**31 - 1)
    if max(height, width) > largest:
        raise ValueError(
            f"can't write {path}: {kind} holds at most {largest} pixels a side, not {width}x{height}; write PNG or TIFF"
        )


def _fitting(pixels: Pixels, kind: str) -> Pixels:
    """Return what a format of 8 bit can hold."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if kind in ("JPEG", "BMP") and has_alpha(pixels):
        alpha = pixels[..., -1:].astype(np.uint16)
        return ((pixels[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if kind == "WEBP" and pixels.shape[2] == 2:
        return pixels[..., [0, 0, 0, 1]]
    return pixels


class _TooLarge(Exception):
    pass


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep Pillow from printing about odd metadata, and from its own limit on pixels: ours is checked instead."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _opened(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file, formats=_READABLE)
    except UnidentifiedImageError:
        raise ValueError("it is damaged, or no image of a known format") from None


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, 1 to 8; anything else is taken for 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _telling(exif: Image.Exif | None, width: int, height: int) -> Image.Exif:
    """Return the tags worth keeping, with orientation 1 and the new size where the old one stood."""
    kept, written = Image.Exif(), Image.Exif()
    if exif is None:
        return written
    for tag in _TELLING_TAGS:
        value = dict(exif.get_ifd(tag)) if tag in (_EXIF_IFD, _GPS_IFD) else exif.get(tag)
        if value:
            kept[tag] = value
    if _EXIF_WIDTH in kept.get(_EXIF_IFD, {}):
        kept[_EXIF_IFD] |= {_EXIF_WIDTH: width, _EXIF_HEIGHT: height}
    if len(kept):
        kept[_ORIENTATION] = 1
        # As bytes, of which Pillow's TIFF writer knows the inner directories; tags of a damaged file may not be writable.
        with suppress(Exception):
            written.load(kept.tobytes())
    return written


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
