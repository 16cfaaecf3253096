"""Reads picture files of every format: upright, at full depth, with profile, EXIF and resolution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from fluxsr.images import tiff
from fluxsr.images.convert import Pixels, from_pil, to_rgb, to_tensor
from fluxsr.images.formats import FURTHER, READABLE, told_format
from fluxsr.images.metadata import (
    ORIENTATION,
    Picture,
    iptc_of,
    lies_on_its_side,
    readable_exif,
    resolution,
    texts_of,
    upright,
    xmp_of,
)
from fluxsr.images.png import color_chunks, png_depth, profile_of_numbers, read_png, read_ppm
from fluxsr.images.profiles import video_colors

# Bytes of a PNG's text: a picture isn't refused for the workflow that made it, as Pillow would above one million.
_LONGEST_TEXT = 2**26

# These come upright from their readers. JPEG XL has an orientation of its own, beside which EXIF's doesn't count.
_UPRIGHT = ("TIFF", "JXL")

MAX_PIXELS = 178_956_970
"""Height times width of the largest picture that is read unless a larger limit is given; Pillow's own limit."""


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
            return tiff.read_page(file, lambda width, height: _check_size(width, height, max_pixels))
        with image:
            _check_size(*image.size, max_pixels)
            pixels, profile_fits = _decoded(file, image)
            exif = readable_exif(image)
            if image.format not in _UPRIGHT:
                pixels = upright(pixels, exif.get(ORIENTATION, 1))
            profile, cicp = _colors(file, image, gray=pixels.shape[2] < 3)
            return Picture(
                pixels,
                profile if profile_fits else None,
                exif if len(exif) else None,
                resolution(image.info, exif),
                getattr(image, "n_frames", 1) if image.format != "MPO" else 1,
                xmp_of(image.info),
                texts_of(image),
                cicp,
                image.format == "WEBP" and _is_lossless_webp(file),
                iptc_of(image),
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
        # Of TIFF, Pillow says the upright size already, or not, by its version.
        if image is None or image.format == "TIFF":
            return tiff.read_size(file)
        with image:
            width, height = image.size
            # Of a PNG without EXIF in its header, `getexif` would decode the whole image to look behind it.
            told = image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys()
            exif = readable_exif(image) if told and image.format != "JXL" else {}
            return (width, height) if lies_on_its_side(exif.get(ORIENTATION, 1)) else (height, width)


def _decoded(file: IO[bytes], image: Image.Image) -> tuple[Pixels, bool]:
    """Return pixels at full depth, and whether the ICC profile still describes them.

    Of PNG and PPM Pillow reads first, so that damage is found; other libraries then read what it reads at too few bits.
    """
    if image.format == "TIFF":
        pixels = tiff.read(file)
        if pixels is not None:
            return pixels, True
    image.load()
    if image.format == "PNG" and image.mode == "L" and isinstance(image.info.get("transparency"), int):
        # Pillow widens gray of 2 and 4 bit, and not the gray that is transparent.
        image.info["transparency"] *= 255 // (2 ** min(png_depth(file), 8) - 1)
    pixels, profile_fits = from_pil(image)
    deep = None
    if image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA"):
        deep = read_png(file, pixels.shape)
    elif image.format == "PPM" and image.mode == "RGB":
        deep = read_ppm(file)
    return (pixels, profile_fits) if deep is None else (deep, profile_fits)


def _colors(file: IO[bytes], image: Image.Image, gray: bool) -> tuple[bytes | None, bytes | None]:
    """Return the profile of the pixels, or one that stands for what the file says in numbers, and its cICP."""
    profile = image.info.get("icc_profile") or None
    if image.format == "PNG":
        chunks = color_chunks(file)
        return profile or profile_of_numbers(chunks, gray), chunks.get(b"cICP")
    if image.format in ("AVIF", "HEIF") and profile is None:
        return None, video_colors(file)
    return profile, None


def _is_lossless_webp(file: IO[bytes]) -> bool:
    """Whether the first picture in a WebP is of the lossless kind."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        # A frame's picture is a chunk within it, behind 16 bytes.
        file.seek(16 if kind == b"ANMF" else length + length % 2, 1)
    return False


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(
            f"it has {width}x{height} pixels, {width * height / 1e6:.1f} million: more than the limit of "
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
    except MemoryError:
        raise
    except Exception as error:
        # Damaged files make decoders raise nearly anything: KeyError, struct.error, ZeroDivisionError.
        lines = str(error).strip().splitlines()
        said = lines[0] if lines else type(error).__name__
        raise ValueError(f"can't read {path}: {f'it is damaged ({said})' if _is_of_damage(error) else said}") from error


def _is_of_damage(error: Exception) -> bool:
    """Whether a decoder failed over a file's contents: not over the disk, a kind that it doesn't know, or our own checks."""
    if isinstance(error, OSError):
        return error.errno is None and "not available" not in str(error)
    return not isinstance(error, (ValueError, NotImplementedError))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep Pillow from printing about odd metadata, and from its limits on texts and on pixels: ours is checked instead."""
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, _LONGEST_TEXT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits


def _opened(file: IO[bytes]) -> Image.Image | None:
    """Open with Pillow; ``None`` for a TIFF of a kind that Pillow doesn't know."""
    start = file.read(64)
    file.seek(0)
    told = told_format(start)
    if told in FURTHER:
        if start[4:8] in (b"ftyp", b"JXL ") and _is_cut_off(file):
            raise ValueError(f"it is a damaged {told} file, of which the end is missing")
        _register(told)
        try:
            return Image.open(file, formats=[told])
        except Exception as error:  # each library has its own; it has kinds, too, that its library doesn't know
            raise ValueError(f"it is {told} that can't be read here: convert it to PNG, TIFF or JPEG") from error
    try:
        return Image.open(file, formats=READABLE)
    except UnidentifiedImageError:
        if told == "TIFF":
            return None
        if told in READABLE:
            raise ValueError(f"it is a damaged {told} file") from None
        known = ", ".join((*READABLE, *FURTHER))
        raise ValueError(f"it is no picture of a known format ({known}): convert it to PNG, TIFF or JPEG") from None


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether the boxes of an AVIF, HEIC or JPEG XL go on behind the end of its file."""
    place, end = 0, file.seek(0, 2)
    while place + 8 <= end:
        file.seek(place)
        length = int.from_bytes(file.read(8)[:4], "big")  # the other four are its kind
        if length == 1:  # it stands behind the kind
            length = int.from_bytes(file.read(8), "big")
        if length < 8:  # 0: it goes up to the end
            break
        place += length
    file.seek(0)
    return place > end


def _register(name: str) -> None:
    """Make Pillow know a format of :data:`FURTHER`; a ValueError says what to install."""
    extra = FURTHER[name]
    try:
        if name == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        elif name == "JXL":
            import pillow_jxl  # noqa: F401  # registers itself
        elif not features.check("avif"):
            raise ValueError("it is AVIF, which this Pillow was built without: install Pillow's own wheel")
    except ImportError:
        kind = {"HEIF": "HEIC", "JXL": "JPEG XL"}[name]
        raise ValueError(f"it is {kind}, which needs a further library: pip install 'fluxsr[{extra}]'") from None
