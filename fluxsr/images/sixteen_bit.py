"""Reads 16-bit colors in PNG and PPM, for which Pillow has no mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from fluxsr.images.convert import Pixels, widened

_HEADER_END = 33  # of a PNG: signature and IHDR
# Width, height and the value of white, between spaces and comments.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PPM_HEADER = re.compile(rb"P6" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_GRAY_ALPHA = 4  # the color type


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
    if header[25] == _GRAY_ALPHA:  # which both libraries widen
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
