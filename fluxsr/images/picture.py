"""A picture with what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from fluxsr.images.convert import Pixels


@dataclass(frozen=True)
class Picture:
    """A picture as it was in its file, upright.

    Attributes:
        pixels: ``(H, W, C)``, uint8 or uint16, C from gray (1) to RGB and alpha (4).
        icc_profile: the profile that describes the pixels, if any.
        exif: what the camera wrote; its orientation has been applied.
        dpi: resolution along x and y, in dots per inch.
        frames: how many the file had; ``pixels`` is the first.
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    frames: int = 1
