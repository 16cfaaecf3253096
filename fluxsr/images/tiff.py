"""Reads TIFFs that Pillow can't (16-bit colors, gray with alpha, planes apart), and writes 16 bit with EXIF."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags

from fluxsr.images.convert import Pixels, has_alpha, widened
from fluxsr.images.metadata import IPTC, ORIENTATION, Picture, lies_on_its_side, resolution, upright, xmp_of
from fluxsr.images.png import decode_with_opencv

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK, _YCBCR = 0, 1, 2, 5, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2
_PROFILE, _XMP = 34675, 700
_LARGEST_CLASSIC = 2**32 - 2**27  # bytes of pixels, with room for any metadata
_LONG8 = 16
_APART = 2
_UNCOMPRESSED = 1
_ALWAYS_DECODED = (_UNCOMPRESSED, 8, 32946)  # the latter two are zlib's, which Python has
_OF_OPENCV = (5, 32773)  # LZW and PackBits
_ROWS = 64

# tifffile logs what it finds odd, and Python prints the log of a library that nobody listens to.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read(file: IO[bytes], alone: bool = False) -> Pixels | None:
    """Return the first page, upright; ``None`` if it is of a kind that Pillow reads right, unless it is asked ``alone``.

    Pillow is right about 8 bit that is not in planes, and about CMYK that is. Of the others it mixes planes up, drops bits, or
    misses the range.
    """
    with _open(file) as tiff:
        page = tiff.pages[0]
        if page.dtype is None or page.dtype.kind not in "iuf":
            return None
        if page.dtype.kind == "i":
            raise ValueError("its samples are signed: convert it to 8 or 16 bit without sign")
        if page.dtype.kind == "u" and page.dtype.itemsize > 2:
            raise ValueError(
                f"its samples have {page.bitspersample} bit, of which white is not known: convert it to 8 or 16 bit"
            )
        if page.photometric == _YCBCR and page.compression == _UNCOMPRESSED:
            raise ValueError("it is YCbCr without compression, which isn't read: convert it to RGB")
        apart = page.planarconfig == _APART and page.samplesperpixel > 1
        deep = page.dtype != np.uint8
        if not _is_plain(page):
            if apart and (deep or page.photometric != _CMYK):
                raise ValueError(
                    "it keeps its colors in separate planes, which is read of gray and RGB alone: convert it to RGB"
                )
            if page.dtype.kind == "f":
                raise ValueError(_undecoded(page))
            return None
        if not (deep or apart or alone):
            return None
        pixels = _pixels(page, file, apart)
        if pixels is None and (
            deep or alone or page.photometric != _RGB
        ):  # of planes Pillow is right about those of 8-bit RGB
            raise ValueError(_undecoded(page))
        return pixels


def _undecoded(page: Any) -> str:
    if page.compression in _ALWAYS_DECODED and not _is_packed(page):
        return "it is damaged"
    if page.compression in _OF_OPENCV:
        return "it is damaged, or of a kind that is not read: convert it with what made it"
    what = f"its compression ({getattr(page.compression, 'name', page.compression)})"
    if _is_packed(page):
        what = f"samples of {page.bitspersample} bit"
    return f"{what} can't be read in this kind of TIFF: pip install imagecodecs, or convert it"


def read_page(file: IO[bytes], check_size: Callable[[int, int], None]) -> Picture:
    """Read a TIFF that Pillow doesn't know, such as 16-bit gray with alpha, as :func:`read` does.

    ``check_size`` is called with width and height before anything is decoded.
    """
    with _open(file) as tiff:
        page = tiff.pages[0]
        check_size(page.imagewidth, page.imagelength)
        pixels = read(file, alone=True)
        if pixels is None:
            raise ValueError("its kind of TIFF isn't known: convert it to 8 or 16 bit, gray or RGB")
        profile, xmp = page.tags.valueof(_PROFILE), page.tags.valueof(_XMP)
        frames = len(tiff.pages)
    exif = Image.Exif()
    with suppress(Exception):  # what a TIFF says in its directory, as far as it is readable
        file.seek(0)
        exif.load_from_fp(file)
    return Picture(
        pixels,
        bytes(profile) if profile else None,
        exif if len(exif) else None,
        resolution({}, exif),
        frames,
        xmp_of({"xmp": bytes(xmp)}) if isinstance(xmp, bytes) else None,
    )


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
    known = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    return known and page.samplesperpixel >= _color_count(page) and page.imagedepth == 1


def _color_count(page: Any) -> int:
    return 3 if page.photometric == _RGB else 1


def _pixels(page: Any, file: IO[bytes], apart: bool) -> Pixels | None:
    """Return the pixels, upright; ``None`` where they can't be decoded."""
    orientation = page.tags.valueof(ORIENTATION, default=1)
    try:
        pixels = page.asarray()
    except NotImplementedError:  # samples of 10 or 12 bit, say, packed without gaps
        return None
    except ValueError:
        # A compression, such as LZW, for which tifffile needs the package imagecodecs. OpenCV has it, but mixes up planes.
        if apart:
            return None
        file.seek(0)
        pixels, orientation = decode_with_opencv(file.read()), 1
        if pixels is None or pixels.dtype != page.dtype or pixels.shape[2] < page.samplesperpixel:
            return None
    pixels = np.moveaxis(pixels, 0, -1) if apart else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.dtype.kind == "f":
        pixels = _sixteen_bit(pixels)
    if _is_packed(page):
        pixels = widened(pixels, 2**page.bitspersample - 1)
    colors = _color_count(page)
    extra = page.extrasamples or (_UNASSOCIATED,)  # one that isn't described is alpha, as others take it, too
    alpha = pixels.shape[2] > colors and extra[0] in (_ASSOCIATED, _UNASSOCIATED)
    pixels = pixels[..., : colors + alpha]
    if alpha and extra[0] == _ASSOCIATED:
        pixels = _divided_by_alpha(pixels)
    if page.photometric == _WHITE_IS_ZERO:
        pixels = np.concatenate([np.invert(pixels[..., :1]), pixels[..., 1:]], axis=-1)
    return upright(pixels, orientation)


def _sixteen_bit(values: Pixels) -> Pixels:
    """Return floating-point values in ``[0, 1]`` as 16 bit; a ValueError if they lie outside, or aren't finite."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # what resampling leaves; NaN fails both comparisons
        raise ValueError(
            f"it holds floating-point values from {low:g} to {high:g}, of which white is not known: scale them to [0, 1]"
        )
    return np.rint(values.clip(0, 1).astype(np.float64) * 65535).astype(np.uint16)


def _is_packed(page: Any) -> bool:
    """Whether a sample has fewer bits than the integers that it is read into."""
    return bool(page.dtype.kind == "u" and page.bitspersample != 8 * page.dtype.itemsize)


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
    icc_profile: bytes | None,
    tags: Mapping[int, Any],
    dpi: tuple[float, float] | None,
    xmp: bytes | None = None,
    iptc: bytes | None = None,
) -> None:
    """Write ``(H, W, C)`` pixels of 8 or 16 bit as uncompressed TIFF.

    The directory is Pillow's, and ``tags`` those of EXIF that go into it: tifffile writes no inner EXIF directories, OpenCV no
    metadata, and Pillow itself no 16-bit colors, and no EXIF beside compressed pixels.
    """
    height, width, channels = pixels.shape
    # Offsets have 64 bit in a BigTIFF, which the header says.
    big = pixels.nbytes > _LARGEST_CLASSIC
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II+\0".ljust(16, b"\0") if big else b"II*\0".ljust(8, b"\0"))
    for tag, value in tags.items():
        directory[tag] = value
    directory[256], directory[257], directory[258] = width, height, (8 * pixels.itemsize,) * channels
    directory[259] = 1  # no compression
    directory[262] = _BLACK_IS_ZERO if channels < 3 else _RGB
    directory[277], directory[278] = channels, height
    # The only strip's place is counted from the directory's end.
    directory.tagtype[279] = _LONG8 if big else TiffTags.LONG
    directory[273], directory[279] = (0,), (pixels.nbytes,)
    if has_alpha(pixels):
        directory[338] = _UNASSOCIATED
    if icc_profile:
        directory[_PROFILE] = icc_profile
    if xmp:
        directory[_XMP] = xmp
    if iptc:
        directory.tagtype[IPTC] = TiffTags.BYTE
        directory[IPTC] = iptc
    if dpi:
        directory[282], directory[283], directory[296] = *dpi, 2
    directory.save(file)
    for top in range(0, height, _ROWS):
        file.write(pixels[top : top + _ROWS].astype(pixels.dtype.newbyteorder("<")).tobytes())
