"""The one reader of picture files: whatever the format, upright, at full depth, with profile, EXIF and resolution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fluxsr.images import tiff
from fluxsr.images.convert import Pixels, from_pil, to_rgb, to_tensor
from fluxsr.images.formats import READABLE
from fluxsr.images.metadata import ORIENTATION, lies_on_its_side, resolution, upright
from fluxsr.images.picture import Picture
from fluxsr.images.sixteen_bit import read_png

MAX_PIXELS = 178_956_970
"""Height times width of the largest picture that is read unless somebody allows more; Pillow's own limit."""


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, of which the camera's orientation is applied.

    The contents decide on the format, not the ending. CMYK becomes RGB, palettes RGB or RGBA, bilevel images gray.

    Args:
        path: File to read.
        max_pixels: Largest height times width to accept.

    Raises:
        ValueError: If the file is missing, empty, cut off, damaged, of no known format, or larger than ``max_pixels``,
            which is known from its header, before anything is decoded. It names the file.
    """
    path = Path(path)
    with _file(path) as file:
        image = _opened(file)
        if image is None:
            return tiff.read_page(file, lambda width, height: _check_size(path, width, height, max_pixels))
        with image:
            _check_size(path, *image.size, max_pixels)
            pixels, profile_fits = _decoded(file, image)
            exif = image.getexif()
            if image.format != "TIFF":  # which comes upright
                pixels = upright(pixels, exif.get(ORIENTATION, 1))
            return Picture(
                pixels,
                image.info.get("icc_profile") if profile_fits else None,
                exif if len(exif) else None,
                resolution(image),
                getattr(image, "n_frames", 1) if image.format != "MPO" else 1,
            )


def read_image(path: str | Path) -> Tensor:
    """Read a picture as RGB without alpha: gray three times, transparent pixels on white.

    Args:
        path: File to read.

    Returns:
        ``(3, H, W)`` float32 in ``[0, 1]``, at the file's full depth.

    Raises:
        ValueError: As :func:`read_picture`.
    """
    return to_tensor(read_pixels(path))


def read_pixels(path: str | Path) -> Pixels:
    """Read a picture as :func:`read_image`, but as ``(H, W, 3)`` integers of 8 or 16 bit: a quarter of the memory."""
    return to_rgb(read_picture(path).pixels)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of a picture from its header, as it is after the camera's orientation has been applied.

    Raises:
        ValueError: As :func:`read_picture`; damage behind the header isn't seen.
    """
    with _file(Path(path)) as file:
        image = _opened(file)
        if image is None:
            return tiff.read_size(file)
        with image:
            width, height = image.size
            turned = _tells_exif(image) and lies_on_its_side(image.getexif().get(ORIENTATION, 1))
            return (width, height) if turned else (height, width)


def _decoded(file: IO[bytes], image: Image.Image) -> tuple[Pixels, bool]:
    """Return pixels at full depth, and whether the ICC profile still describes them.

    Pillow reads first, so that damage is found; other libraries then read what Pillow reads at too few bits.
    """
    is_tiff = image.format == "TIFF"
    if is_tiff and image.tag_v2.get(tiff.PLANES) == tiff.APART:  # type: ignore[attr-defined]
        pixels = tiff.read_better(file)  # Pillow mixes such planes up, or fails
        if pixels is not None:
            return pixels, True
    image.load()
    pixels, profile_fits = from_pil(image)
    deep = None
    if image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA"):
        deep = read_png(file, pixels.shape)
    elif is_tiff:
        deep = tiff.read_better(file)
    return pixels if deep is None else deep, profile_fits


class _TooLarge(ValueError):
    pass


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _TooLarge(
            f"{path} has {width}x{height} pixels, {width * height / 1e6:.1f} million: more than the limit of "
            f"{max_pixels / 1e6:g}; if you trust it, allow more with --max_pixels"
        )


@contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; whatever goes wrong with it is a ValueError that names it, but for memory that runs out."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, not an image file")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        with _no_warnings(), path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (MemoryError, _TooLarge):
        raise
    except Exception as error:
        # Damaged files make decoders raise nearly anything: KeyError, struct.error, ZeroDivisionError.
        lines = str(error).strip().splitlines()
        raise ValueError(f"can't read {path}: {lines[0] if lines else type(error).__name__}") from error


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep Pillow from printing about odd metadata, and from its own limit on pixels: ours is checked instead."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _opened(file: IO[bytes]) -> Image.Image | None:
    """Open with Pillow; ``None`` for a TIFF of a kind that Pillow doesn't know."""
    try:
        return Image.open(file, formats=READABLE)
    except UnidentifiedImageError:
        if tiff.is_tiff(file):
            return None
        raise ValueError("it is damaged, or no image of a known format") from None


def _tells_exif(image: Image.Image) -> bool:
    # Of a PNG without EXIF in its header, `getexif` would decode the whole image to look behind it.
    return image.format != "PNG" or "exif" in image.info or "Raw profile type exif" in image.info
