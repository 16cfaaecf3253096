"""Reads the color chunks of a PNG that Pillow leaves out, and writes PNG, of 16 bit, too."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
from PIL import PngImagePlugin

from fluxsr.images.convert import Pixels, to_pil
from fluxsr.images.profiles import gamma_profile

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ROWS = 64  # compressed at a time
# The low bytes of photos are noise: run lengths find as much in them as a search for repeats, in a third of the time.
_LEVEL, _STRATEGY = 6, zlib.Z_RLE


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
    """Write ``(H, W, C)`` pixels of 8 or 16 bit as PNG, and return what it can't hold.

    Args:
        file: File to write to.
        pixels: Picture of 1 to 4 channels.
        icc_profile: Profile of the colors.
        exif: EXIF block, with or without the leading ``Exif\\0\\0``.
        dpi: Dots per inch along x and y.
        xmp: XMP block.
        text: Texts by their names.
        cicp: Body of the cICP chunk.
    """
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
    """Return the chunks of texts, XMP and cICP, and what can't be one.

    Args:
        text: Texts by their names.
        xmp: XMP block.
        cicp: Body of the cICP chunk.
    """
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
            if language or translated or not _is_latin(words):
                info.add_itxt(name, str(words), language, translated)
            else:
                info.add_text(name, str(words))
        except (UnicodeEncodeError, AttributeError):
            lost.append(f"text {name!r}")
    return info, lost


def _is_latin(words: str) -> bool:
    try:
        words.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return "\0" not in words
