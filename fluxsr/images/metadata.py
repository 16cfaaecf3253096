"""What a file tells about a picture beside its pixels: orientation, EXIF, ICC profile, resolution."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from PIL import Image

from fluxsr.images.convert import Pixels

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
# Of a TIFF, EXIF is the whole directory, with where its pixels lie: only what tells about the photo is carried over.
_TELLING_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, EXIF_IFD, GPS_IFD)


def lies_on_its_side(orientation: int) -> bool:
    """Whether an EXIF orientation exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, 1 to 8; anything else is taken for 1."""
    if lies_on_its_side(orientation):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def resolution(image: Image.Image) -> tuple[float, float] | None:
    """Return dots per inch along x and y, if the file says so and the numbers make sense."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def exif_to_write(exif: Image.Exif | None, height: int, width: int) -> bytes | None:
    """Return the EXIF block of a result: tags worth keeping, orientation 1, and the new size where the old one stood.

    The block starts with ``Exif\\0\\0``, as Pillow and JPEG have it.
    """
    kept = Image.Exif()
    exif = exif if exif is not None else Image.Exif()
    for tag in _TELLING_TAGS:
        value = exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else exif.get(tag)
        if value:
            kept[tag] = _raw(value)
    if _EXIF_WIDTH in kept.get(EXIF_IFD, {}):
        kept[EXIF_IFD] |= {_EXIF_WIDTH: width, _EXIF_HEIGHT: height}
    if not len(kept):
        return None
    kept[ORIENTATION] = 1
    with suppress(Exception):  # tags of a damaged file may not be writable
        return kept.tobytes()
    return None


def exif_tags(block: bytes) -> dict[int, Any]:
    """Return the tags of an EXIF block as a TIFF's directory takes them; inner directories are dictionaries."""
    exif = Image.Exif()
    exif.load(block)
    return {tag: _raw(exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else value) for tag, value in exif.items()}


def _raw(value: Any) -> Any:
    # Pillow reads text as Latin-1, whatever it is, and writes it as ASCII; as bytes, mostly UTF-8, it goes out as it came in.
    # In the inner directories Pillow would give bytes another type, so text stays text there.
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def profile_for(profile: bytes | None, channels: int) -> bytes | None:
    """Return an ICC profile unless it describes gray and the pixels are colors."""
    return None if profile is not None and channels >= 3 and profile[16:20] == b"GRAY" else profile
