"""Reads and writes 16-bit colors in PNG, and reads them in PPM, for which Pillow has no mode."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from fluxsr.images.convert import Pixels, widened

_HEADER_END = 33  # of a PNG: signature and IHDR
# Width, height and the value of white, between spaces and comments.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PPM_HEADER = re.compile(rb"P6" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ROWS = 64  # compressed at a time
# The low bytes of photos are noise: run lengths find as much in them as a search for repeats, in a third of the time.
_LEVEL, _STRATEGY = 6, zlib.Z_RLE


def read_png(file: IO[bytes], shape: tuple[int, ...]) -> Pixels | None:
    """Return a PNG's pixels if they have 16 bit, else ``None``.

    Args:
        file: PNG file.
        shape: ``(H, W, C)`` as another reader has it.
    """
    file.seek(0)
    header = file.read(_HEADER_END)
    if header[24] != 16:
        return None
    pixels = decode_with_opencv(_essential_chunks(header + file.read()))
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != shape[:2] or pixels.shape[2] < shape[2]:
        return None
    if header[25] == _COLOR_TYPES[2]:  # which both libraries widen
        return pixels[..., [0, 3]]
    return pixels[..., : shape[2]]


def read_ppm(file: IO[bytes]) -> Pixels | None:
    """Return a PPM's colors if they have more than 8 bit, over the whole range of 16 bit; else ``None``."""
    file.seek(0)
    data = file.read()
    found = _PPM_HEADER.match(data)
    if found is None or not 255 < (white := int(found[3])) < 2**16:
        return None
    width, height = int(found[1]), int(found[2])
    values = np.frombuffer(data, ">u2", height * width * 3, found.end()).reshape(height, width, 3)
    return widened(values.astype(np.uint16), white)


def decode_with_opencv(data: bytes) -> Pixels | None:
    """Return ``(H, W, C)`` pixels at full depth in the order RGB, or ``None``."""
    with _opencv() as cv2:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim == 2:
            return None if pixels is None else pixels[..., None]
        swap = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2]]
        return cv2.cvtColor(pixels, swap, dst=pixels)


def write_png(
    file: IO[bytes],
    pixels: Pixels,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    further: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Write ``(H, W, C)`` uint16 pixels as PNG, a few rows at a time.

    OpenCV's imencodeWithMetadata is not used. It needs the memory of three more copies of the pixels, keeps no resolution and
    writes no gray with alpha. It also fails on a profile that libpng rejects, and metadata must not cost the picture.

    Args:
        file: File to write to.
        pixels: Picture of 1 to 4 channels.
        icc_profile: Profile of the colors.
        exif: EXIF block, with or without the leading ``Exif\\0\\0``.
        dpi: Dots per inch along x and y.
        further: Kind and body of chunks that follow.
    """
    height, width, channels = pixels.shape

    def chunk(kind: bytes, body: bytes) -> None:
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1))
    if exif:
        chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    for kind, body in further:
        chunk(kind, body)
    compressor = zlib.compressobj(_LEVEL, strategy=_STRATEGY)
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


@contextmanager
def _opencv() -> Iterator[Any]:
    """Import OpenCV and keep it from printing."""
    import cv2

    # OpenCV 4 has it at the top, OpenCV 5 in utils.logging; both return the level before, and 0 is silent.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    level = set_log_level(0)
    try:
        yield cv2
    finally:
        set_log_level(level)


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
