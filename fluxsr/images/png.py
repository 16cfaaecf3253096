"""Reads and writes what Pillow can't of PNG and PPM: 16-bit colors, and the chunks that describe colors."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import PngImagePlugin

from fluxsr.images.convert import Pixels, to_pil, widened
from fluxsr.images.profiles import gamma_profile

_HEADER_END = 33  # of a PNG: signature and IHDR
# Width, height and the value of white, between spaces and comments.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PPM_HEADER = re.compile(rb"P6" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_GRAY_ALPHA = 4  # the color type
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ROWS = 64  # compressed at a time
# The low bytes of photos are noise: run lengths find as much in them as a search for repeats, in a third of the time.
_LEVEL, _STRATEGY = 6, zlib.Z_RLE


def read_png(file: IO[bytes], shape: tuple[int, ...]) -> Pixels | None:
    """Return the pixels of a PNG, of which Pillow has the shape ``(H, W, C)``, if they have 16 bit; else ``None``."""
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


def png_depth(file: IO[bytes]) -> int:
    """Return the bits of a sample, as the header says."""
    file.seek(24)
    return file.read(1)[0]


def color_chunks(file: IO[bytes]) -> dict[bytes, bytes]:
    """Return the chunks before the pixels that describe colors: cICP, iCCP, sRGB, gAMA and cHRM; of iCCP, an empty body."""
    found: dict[bytes, bytes] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            break
        sizes = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}
        if length == sizes.get(kind):
            found[kind] = file.read(length)
            file.seek(4, 1)
            continue
        if kind == b"iCCP":
            found[kind] = b""
        file.seek(length + 4, 1)
    return found


def profile_of_numbers(chunks: Mapping[bytes, bytes], gray: bool) -> bytes | None:
    """Return the profile that stands for gAMA and cHRM, where nothing in the file goes before them."""
    if b"gAMA" not in chunks or {b"cICP", b"iCCP", b"sRGB"} & chunks.keys():
        return None
    gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    points = None
    if b"cHRM" in chunks:
        points = [value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"])]
    return gamma_profile(1 / gamma, points, gray) if gamma > 0 else None


def write_png(
    file: IO[bytes],
    pixels: Pixels,
    icc_profile: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
    xmp: bytes | None,
    text: Mapping[str, str],
    cicp: bytes | None,
) -> list[str]:
    """Write ``(H, W, C)`` pixels of 8 or 16 bit as PNG, and return what it can't hold."""
    info, lost = _info_to_write(text, xmp, cicp)
    if pixels.dtype == np.uint16:
        _write_sixteen_bit(file, pixels, icc_profile, exif, dpi, [chunk[:2] for chunk in info.chunks])
    else:
        told = {"icc_profile": icc_profile, "exif": exif, "dpi": dpi}
        to_pil(pixels).save(file, format="PNG", pnginfo=info, **{name: value for name, value in told.items() if value})
    return lost


def _write_sixteen_bit(
    file: IO[bytes],
    pixels: Pixels,
    icc_profile: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
    further: Sequence[tuple[bytes, bytes]],
) -> None:
    """Write ``(H, W, C)`` uint16 pixels as PNG, a few rows at a time.

    OpenCV's imencodeWithMetadata is not used. It needs the memory of three more copies of the pixels, keeps no resolution and
    writes no gray with alpha. It also fails on a profile that libpng rejects, and metadata must not cost the picture.
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


def _info_to_write(
    text: Mapping[str, str], xmp: bytes | None, cicp: bytes | None
) -> tuple[PngImagePlugin.PngInfo, list[str]]:
    """Return the chunks of texts, XMP and cICP, and what can't be one."""
    info = PngImagePlugin.PngInfo()
    lost: list[str] = []
    if cicp:
        info.add(b"cICP", cicp)
    if xmp:
        try:
            info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8"))
        except UnicodeDecodeError:
            lost.append("XMP")
    for name, words in text.items():
        try:
            language, translated = getattr(words, "lang", None) or "", getattr(words, "tkey", None) or ""
            # Pillow itself writes what is not Latin as international text.
            if language or translated or "\0" in words:
                info.add_itxt(name, str(words), language, translated)
            else:
                info.add_text(name, str(words))
        except (UnicodeEncodeError, AttributeError):
            lost.append(f"text {name!r}")
    return info, lost
