"""Image files in and out: found in folders, read whatever their format, written so that no half of a file remains."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fluxsr.atomic import replacing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

PixelArray = NDArray[np.uint8] | NDArray[np.uint16]

_ORIENTATION_TAG = 0x0112
# What Pillow's decoders raise on damaged files.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted by their path below it.

    Hidden files and folders are left out.

    Args:
        folder: looked through to the bottom.

    Raises:
        ValueError: if the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "doesn't exist"
        raise ValueError(f"the image folder {folder} {kind}")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"no images in {folder}: looked, in subfolders too, for files ending in {_suffixes()}")
    return paths


def read_image(path: str | Path) -> Tensor:
    """Read an image file.

    The camera's orientation is applied. Gray and palette images become RGB, transparent ones are laid on white, and
    16-bit gray keeps its precision.

    Args:
        path: of the file; its contents decide on the format.

    Returns:
        `(3, H, W)` float32 in [0, 1].

    Raises:
        ValueError: if the file is missing, cut off, damaged, of no image format or far too large, naming it.
    """
    return to_tensor(read_pixels(path))


def read_pixels(path: str | Path) -> PixelArray:
    """Read an image file as `read_image`, but as `(H, W, 3)` integers of 8 or 16 bit: a quarter of the memory."""
    path = Path(path)
    try:
        with _opened(path) as file:
            image = ImageOps.exif_transpose(file)
            return _rgb_pixels(image)
    except _DECODING_ERRORS as error:
        raise ValueError(_unreadable(path, error)) from error


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W) of an image file from its header, as it will be after the camera's orientation is applied.

    Raises:
        ValueError: as `read_image`; damage behind the header isn't seen.
    """
    path = Path(path)
    try:
        with _opened(path) as image:
            width, height = image.size
            turned = _has_exif(image) and image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    except _DECODING_ERRORS as error:
        raise ValueError(_unreadable(path, error)) from error
    return (width, height) if turned else (height, width)


def to_tensor(pixels: PixelArray) -> Tensor:
    """Turn `(H, W, 3)` integers of 8 or 16 bit into a `(3, H, W)` float32 tensor in [0, 1]."""
    values = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def write_image(path: str | Path, image: Tensor) -> None:
    """Write `(3, H, W)` in [0, 1], rounded to 8 bit, in the format of the path's suffix; values outside are clamped.

    The file appears under its name only when it is complete. JPEG and WebP are written at quality 95.

    Args:
        path: whose suffix decides on the format.
        image: `(3, H, W)`.

    Raises:
        ValueError: for another shape, values that aren't finite, or an unknown suffix.
        OSError: if the disk is full or the folder can't be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"can't write {path}: the name must end in one of {_suffixes()}")
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"can't write {path}: the image must be (3, H, W), got {tuple(image.shape)}")
    if not bool(image.isfinite().all()):
        raise ValueError(f"can't write {path}: the image has NaN or infinite values")
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(1, 2, 0)
    options: dict[str, Any] = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(temporary, **options)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _has_exif(image: Image.Image) -> bool:
    # Of a PNG without EXIF data in its header, `getexif` would decode the whole image to look behind it.
    return image.format != "PNG" or "exif" in image.info or "Raw profile type exif" in image.info


def _rgb_pixels(image: Image.Image) -> PixelArray:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _deep_gray_pixels(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _deep_gray_pixels(gray: NDArray[np.generic]) -> PixelArray:
    """Turn single-channel integers of more than 8 bit into 16-bit RGB."""
    if not np.issubdtype(gray.dtype, np.integer):
        raise ValueError("it holds floating-point values of unknown range; convert it to 8 or 16 bit")
    low, high = int(gray.min()), int(gray.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"its values span [{low}, {high}], more than 16 bit; convert it to 8 or 16 bit")
    return np.repeat(gray.astype(np.uint16)[..., None], 3, axis=2)


def _suffixes() -> str:
    return ", ".join(IMAGE_SUFFIXES)


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the image {path} doesn't exist"
    if path.is_file() and path.stat().st_size == 0:
        return f"the image {path} is empty (0 bytes): delete it or replace it by a good copy"
    return (
        f"can't read the image {path}: {error}. Delete it, replace it by a good copy, or skip it with on_error='skip'"
    )
