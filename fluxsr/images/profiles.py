"""Makes ICC profiles from numbers in a file (gamma, primaries, cICP), and a color profile from a gray one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fluxsr.images.formats import Format

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# x and y of white, red, green and blue.
_D65 = (0.3127, 0.3290)
SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_D50 = np.array([0.9642, 1.0, 0.8249])  # of every profile
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_PRIMARIES = {  # ITU-T H.273, table 2
    1: SRGB,
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # table 3
_UNSPECIFIED = 2
# sRGB's own, none said, and video's, which everyone shows as sRGB's.
_AS_SRGB = (13, _UNSPECIFIED, 1, 6, 14, 15)
_POINTS = 1024
_BOXES = 65536  # bytes of a file in which its boxes stand


def _srgb(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def gamma_profile(exponent: float, chromaticities: Sequence[float] | None, gray: bool) -> bytes | None:
    """Return the profile of pixels whose light is their value to the power of ``exponent``, 2.2 for usual pictures.

    ``chromaticities`` are x and y of white, red, green and blue; sRGB's by default. The result is ``None`` where that is sRGB,
    which needs no profile, or where the numbers are no colors.
    """
    points = SRGB if chromaticities is None else tuple(chromaticities)
    usual = max(abs(one - other) for one, other in zip(points, SRGB, strict=True)) < 0.002
    if not 0.1 < exponent < 10 or (abs(exponent - 2.2) < 0.03 and (usual or gray)):
        return None
    return _profile(_curve_tag(exponent), None if gray else points)


def cicp_profile(cicp: bytes, gray: bool) -> bytes | None:
    """Return the profile that says what a cICP chunk says; ``None`` where that is sRGB."""
    primaries, transfer = cicp[0], cicp[1]
    plain = cicp[2] == 0 and cicp[3] == 1
    if plain and _is_srgb(primaries, transfer):
        return None
    points = _PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries)
    curve: float | Curve | None = _srgb if transfer in _AS_SRGB else _GAMMAS.get(transfer)
    if points is None or curve is None or not plain:
        codes = f"of primaries {primaries}, transfer {transfer}, matrix {cicp[2]} and range {cicp[3]}"
        kind = {16: "HDR (PQ)", 18: "HDR (HLG)"}.get(transfer, codes)
        raise ValueError(f"its colors are {kind}, which only PNG can say: write PNG")
    return _profile(_curve_tag(curve), None if gray else points)


def video_colors(file: IO[bytes]) -> bytes | None:
    """Return the colors that AVIF and HEIC say in numbers, as a cICP chunk would; ``None`` where that is sRGB."""
    file.seek(0)
    start = file.read(_BOXES)
    place = start.find(b"colrnclx")
    if place < 0 or place + 14 > len(start):
        return None
    primaries, transfer = struct.unpack_from(">HH", start, place + 8)
    if _is_srgb(primaries, transfer):
        return None
    return bytes([primaries & 255, transfer & 255, 0, 1])  # what was decoded is RGB of full range


def _is_srgb(primaries: int, transfer: int) -> bool:
    return primaries in (1, _UNSPECIFIED) and transfer in _AS_SRGB


def space_of(profile: bytes) -> bytes:
    """Return the four letters of the colors that a profile describes: ``RGB``, ``GRAY``, ``CMYK``."""
    return profile[16:20]


def profile_to_write(
    path: Path, kind: Format, cicp: bytes | None, profile: bytes | None, channels: int
) -> bytes | None:
    """Return the profile of a file's colors; ``None`` where there is none, or the format has no place for it.

    ``cicp`` and ``profile`` came with the picture; the former goes first. A ValueError says that the format can't say what the
    colors are.
    """
    channels = channels if kind.gray else 3
    if cicp is not None and kind.name != "PNG":
        try:
            profile = cicp_profile(cicp, channels < 3)
        except ValueError as error:
            raise ValueError(f"can't write {path}: {error}") from None
        if profile is not None and "profile" not in kind.keeps:
            raise ValueError(f"can't write {path}: {kind.name} can't say which its colors are: write PNG")
        return profile
    return fitting_profile(profile, channels) if "profile" in kind.keeps else None


def fitting_profile(profile: bytes | None, channels: int) -> bytes | None:
    """Return a profile for pixels of some channels, made of the one that came with them.

    A gray profile in a file of colors is an error in all readers: its curve goes into one of sRGB's primaries, which says
    the same of gray. A profile of CMYK or Lab describes no RGB.
    """
    if profile is None or space_of(profile) in (b"CMYK", b"Lab "):
        return None
    if channels < 3 or space_of(profile) != b"GRAY":
        return profile
    count = int.from_bytes(profile[128:132], "big")
    for place in range(132, 132 + 12 * min(count, 100), 12):
        name, offset, size = (
            profile[place : place + 4],
            *struct.unpack_from(">II", profile.ljust(place + 12, b"\0"), place + 4),
        )
        curve = profile[offset : offset + size]
        if name == b"kTRC" and len(curve) == size and curve[:4] in (b"curv", b"para"):
            return _profile(curve, SRGB)
    return None


def _curve_tag(curve: float | Curve) -> bytes:
    if isinstance(curve, float | int):
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))
    values = np.rint(curve(np.linspace(0, 1, _POINTS)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", _POINTS) + values.tobytes()


def _profile(curve: bytes, chromaticities: Sequence[float] | None) -> bytes | None:
    """Return a profile of version 2: of gray without chromaticities, else of RGB; ``None`` if these are no colors."""
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 7) + b"fluxsr\0" + bytes(4 + 4 + 2 + 1 + 67),
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": _xyz(_D50),
    }
    if chromaticities is None:
        tags[b"kTRC"] = curve
    else:
        colors = _colorants(chromaticities)
        if colors is None:
            return None
        for letter, color in zip((b"r", b"g", b"b"), colors.T, strict=True):
            tags[letter + b"XYZ"] = _xyz(color)
            tags[letter + b"TRC"] = curve
    offset = 132 + 12 * len(tags)
    table, data, places = struct.pack(">I", len(tags)), b"", {}
    for name, body in tags.items():
        if body not in places:  # the three curves are one
            places[body] = offset + len(data)
            data += body + bytes(-len(body) % 4)
        table += name + struct.pack(">II", places[body], len(body))
    space = b"GRAY" if chromaticities is None else b"RGB "
    header = struct.pack(">I4sI4s4s4s", offset + len(data), b"\0" * 4, 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + data


def _colorants(chromaticities: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the XYZ of red, green and blue as columns, adapted to D50."""
    points = np.array(chromaticities, float).reshape(4, 2)
    if not np.isfinite(points).all() or (points[:, 1] <= 0.001).any():
        return None
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(primaries, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    matrix = matrix * np.linalg.solve(matrix, white)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    result = np.linalg.solve(_BRADFORD, gains[:, None] * (_BRADFORD @ matrix))
    return result if np.abs(result).max() < 3 else None


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
