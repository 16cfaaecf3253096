"""Reads the color chunks of a PNG that Pillow leaves out, and makes text chunks to write."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO

from PIL import PngImagePlugin

from fluxsr.images.profiles import gamma_profile


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


def info_to_write(
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
