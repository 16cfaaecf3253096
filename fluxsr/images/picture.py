"""Defines a picture with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from fluxsr.images.convert import Pixels


@dataclass(frozen=True)
class Picture:
    """A picture as it was in its file, upright.

    Attributes:
        pixels: ``(H, W, C)``, uint8 or uint16, C from gray (1) to RGB and alpha (4).
        icc_profile: The profile that describes the pixels, if any.
        exif: EXIF data of the camera; its orientation has been applied.
        dpi: Resolution along x and y, in dots per inch.
        frames: Number of frames in the file; ``pixels`` is the first.
        xmp: Captions, ratings and keywords, as XML.
        text: Named texts, such as the ``parameters`` that a generated picture was made with.
        cicp: Primaries, transfer, matrix and range of the colors as video has them; they go before the profile.
        lossless: Whether the file kept its pixels exactly, in a format that also can lose some.
        iptc: Records of IPTC, as agencies write them (caption, byline, rights).
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    frames: int = 1
    xmp: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    cicp: bytes | None = None
    lossless: bool = False
    iptc: bytes | None = None
