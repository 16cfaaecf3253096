"""PNG and TIFF where Pillow falls short: it has no mode for 16-bit colours. Read with OpenCV, written here with metadata."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, TiffImagePlugin

from fluxsr.inference.kinds import Pixels, has_alpha

_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ROWS = 64  # compressed at a time


def read_deep_colours(path: Path, image: Image.Image, pixels: Pixels) -> Pixels:
    """Return a file's pixels at 16 bit if it has them, else ``pixels``.

    Only what Pillow has read in full gets here, so a damaged file doesn't.

    Args:
        path: the file.
        image: as Pillow opened it, mode RGB, RGBA or LA.
        pixels: of 8 bit, as Pillow read them.
    """
    data = path.read_bytes() if image.format in ("PNG", "TIFF") else b""
    if image.format == "PNG" and data[24] == 16:
        gray = data[25] == _PNG_COLOUR_TYPES[2]  # gray with alpha, which both libraries widen to RGBA
        data = _essential_chunks(data)
    elif isinstance(image, TiffImagePlugin.TiffImageFile) and set(image.tag_v2.get(258, ())) == {16}:
        gray = False
    else:
        return pixels
    import cv2

    # OpenCV 4 has it at the top, OpenCV 5 in utils.logging; both return the level before, and 0 is silent.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    level = set_log_level(0)
    try:
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        set_log_level(level)
    order = [2, 1, 0, 3][: pixels.shape[2]]
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != pixels.shape[:2] or deep[0, 0].size < len(order):
        return pixels
    return deep[..., [0, 3] if gray else order]


def _essential_chunks(data: bytes) -> bytes:
    """Return a PNG without metadata, about which libpng would complain on stderr."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def write_deep_png(
    file: IO[bytes], pixels: Pixels, icc_profile: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None
) -> None:
    """Write ``(H, W, C)`` uint16 pixels as PNG, a few rows at a time.

    Args:
        file: where to.
        pixels: with 1 to 4 channels.
        icc_profile: of the colours.
        exif: the block as TIFF has it, without the leading ``Exif`` marker.
        dpi: dots per inch along x and y.
    """
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1))
    if exif:
        chunk(b"eXIf", exif)
    compressor = zlib.compressobj(6)
    above = np.zeros((1, width * channels * 2), np.uint8)
    for top in range(0, height, _ROWS):
        block = np.ascontiguousarray(pixels[top : top + _ROWS].astype(">u2")).view(np.uint8).reshape(-1, above.shape[1])
        # Filter 2, "up": each byte less the one above it, modulo 256.
        lines = np.full((len(block), above.shape[1] + 1), 2, np.uint8)
        np.subtract(block, np.concatenate([above, block[:-1]]), out=lines[:, 1:])
        above = block[-1:]
        if data := compressor.compress(lines.tobytes()):
            chunk(b"IDAT", data)
    chunk(b"IDAT", compressor.flush())
    chunk(b"IEND", b"")


def write_tiff(
    file: IO[bytes], pixels: Pixels, icc_profile: bytes | None, exif: Image.Exif, dpi: tuple[float, float] | None
) -> None:
    """Write ``(H, W, C)`` pixels of 8 or 16 bit as uncompressed TIFF; 16-bit gray with alpha becomes RGB with alpha.

    Of 8 bit too, since Pillow's compressed TIFF can't hold EXIF.

    Args:
        file: where to.
        pixels: with 1 to 4 channels.
        icc_profile: of the colours.
        exif: tags to add to the directory.
        dpi: dots per inch along x and y.
    """
    if pixels.shape[2] == 2 and pixels.dtype == np.uint16:  # no reader knows that
        pixels = pixels[..., [0, 0, 0, 1]]
    height, width, channels = pixels.shape
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in exif.items():
        directory[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else value  # EXIF's and GPS's own directories
    directory[256], directory[257], directory[258] = width, height, (8 * pixels.itemsize,) * channels
    directory[259] = 1  # no compression
    directory[262] = 1 if channels < 3 else 2  # black is zero, or RGB
    directory[277], directory[278] = channels, height
    directory[273], directory[279] = (
        (0,),
        (pixels.nbytes,),
    )  # the first strip's place is counted from the directory's end
    if has_alpha(pixels):
        directory[338] = 2  # the last channel is alpha that the colours are not multiplied by
    if icc_profile:
        directory[34675] = icc_profile
    if dpi:
        directory[282], directory[283], directory[296] = *dpi, 2
    directory.save(file)
    for top in range(0, height, _ROWS):
        file.write(pixels[top : top + _ROWS].astype(pixels.dtype.newbyteorder("<")).tobytes())
