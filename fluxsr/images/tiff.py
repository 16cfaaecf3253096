"""TIFF where Pillow falls short: 16-bit colors, gray with alpha, planes apart are read, and 16 bit with EXIF is written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from PIL import TiffImagePlugin

from fluxsr.images.convert import Pixels, has_alpha
from fluxsr.images.metadata import ORIENTATION, exif_tags, lies_on_its_side, upright
from fluxsr.images.picture import Picture
from fluxsr.images.sixteen_bit import decode_with_opencv

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2
_PROFILE = 34675
PLANES, APART = 284, 2
_ROWS = 64

# tifffile logs what it finds odd, and Python prints the log of a library that nobody listens to.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(file: IO[bytes]) -> bool:
    """Whether a file starts like a TIFF."""
    file.seek(0)
    return file.read(4) in _MAGIC


def read_better(file: IO[bytes]) -> Pixels | None:
    """Return the first page, upright, if Pillow reads it at too few bits or mixes up its planes; else ``None``.

    Only gray and RGB are read, with or without alpha.
    """
    with _open(file) as tiff:
        page = tiff.pages[0]
        apart = page.dtype == np.uint8 and page.planarconfig == APART
        return _read(page, file) if (page.dtype == np.uint16 or apart) and _is_plain(page) else None


def read_page(file: IO[bytes], check_size: Callable[[int, int], None]) -> Picture:
    """Read a TIFF that Pillow doesn't know, such as 16-bit gray with alpha.

    Args:
        file: File to read.
        check_size: Called with width and height before anything is decoded.

    Raises:
        ValueError: If its pixels are not gray or RGB of 8 or 16 bit, or can't be decoded.
    """
    with _open(file) as tiff:
        page = tiff.pages[0]
        check_size(page.imagewidth, page.imagelength)
        pixels = _read(page, file) if page.dtype in (np.uint8, np.uint16) and _is_plain(page) else None
        if pixels is None:
            raise ValueError("its kind of TIFF isn't known: convert it to 8 or 16 bit, gray or RGB")
        profile = page.tags.valueof(_PROFILE)
        return Picture(pixels, bytes(profile) if profile else None, frames=len(tiff.pages))


def read_size(file: IO[bytes]) -> tuple[int, int]:
    """Return (height, width) of the first page, upright, from its directory."""
    with _open(file) as tiff:
        page = tiff.pages[0]
        turned = lies_on_its_side(page.tags.valueof(ORIENTATION, default=1))
        return (page.imagewidth, page.imagelength) if turned else (page.imagelength, page.imagewidth)


def _open(file: IO[bytes]) -> Any:
    import tifffile

    file.seek(0)
    return tifffile.TiffFile(file)


def _is_plain(page: Any) -> bool:
    colors = 3 if page.photometric == _RGB else 1
    known = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    return known and page.samplesperpixel >= colors and page.imagedepth == 1


def _read(page: Any, file: IO[bytes]) -> Pixels | None:
    orientation = page.tags.valueof(ORIENTATION, default=1)
    try:
        pixels = page.asarray()
    except ValueError:
        # A compression, such as LZW, for which tifffile needs the package imagecodecs. OpenCV has it, but mixes up planes.
        if page.planarconfig == APART:
            return None
        file.seek(0)
        pixels, orientation = decode_with_opencv(file.read()), 1
        if pixels is None or pixels.dtype != page.dtype or pixels.shape[2] < page.samplesperpixel:
            return None
    pixels = np.moveaxis(pixels, 0, -1) if page.planarconfig == APART and page.samplesperpixel > 1 else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colors = 3 if page.photometric == _RGB else 1
    if page.photometric == _WHITE_IS_ZERO:
        pixels = np.concatenate([np.invert(pixels[..., :1]), pixels[..., 1:]], axis=-1)
    extra = page.extrasamples or (_UNASSOCIATED,)  # one that isn't described is alpha, as others take it, too
    if pixels.shape[2] == colors or extra[0] not in (_ASSOCIATED, _UNASSOCIATED):
        return upright(pixels[..., :colors], orientation)
    pixels = pixels[..., : colors + 1]
    return upright(_divided_by_alpha(pixels) if extra[0] == _ASSOCIATED else pixels, orientation)


def _divided_by_alpha(pixels: Pixels) -> Pixels:
    white = np.iinfo(pixels.dtype).max
    result = pixels.copy()
    for top in range(0, len(pixels), _ROWS):
        block = pixels[top : top + _ROWS].astype(np.uint64)
        colors = (block[..., :-1] * white + block[..., -1:] // 2) // np.maximum(block[..., -1:], 1)
        result[top : top + _ROWS, :, :-1] = np.minimum(colors, white)
    return result


def write_tiff(
    file: IO[bytes],
    pixels: Pixels,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write ``(H, W, C)`` pixels of 8 or 16 bit as uncompressed TIFF.

    The directory is Pillow's: tifffile writes no inner EXIF directories, OpenCV no metadata, and Pillow itself no 16-bit
    colors, and no EXIF beside compressed pixels.

    Args:
        file: File to write to.
        pixels: Picture of 1 to 4 channels.
        icc_profile: Profile of the colors.
        exif: EXIF block whose tags go into the directory.
        dpi: Dots per inch along x and y.
    """
    height, width, channels = pixels.shape
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in exif_tags(exif).items() if exif else ():
        directory[tag] = value
    directory[256], directory[257], directory[258] = width, height, (8 * pixels.itemsize,) * channels
    directory[259] = 1  # no compression
    directory[262] = _BLACK_IS_ZERO if channels < 3 else _RGB
    directory[277], directory[278] = channels, height
    # The only strip's place is counted from the directory's end.
    directory[273], directory[279] = (0,), (pixels.nbytes,)
    if has_alpha(pixels):
        directory[338] = _UNASSOCIATED
    if icc_profile:
        directory[_PROFILE] = icc_profile
    if dpi:
        directory[282], directory[283], directory[296] = *dpi, 2
    directory.save(file)
    for top in range(0, height, _ROWS):
        file.write(pixels[top : top + _ROWS].astype(pixels.dtype.newbyteorder("<")).tobytes())
