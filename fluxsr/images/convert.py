"""Converts pixels of one kind to another: PIL, numpy and torch images, 8 and 16 bit, CMYK, palettes, gray and alpha."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from fluxsr.images.formats import Format

# (H, W, C) with 1 gray, 2 gray and alpha, 3 RGB or 4 RGB and alpha; uint8, uint16, or floating point in [0, 1].
Pixels = NDArray[Any]

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
# What each remaining mode of Pillow becomes; modes that are not named here become RGB.
_PLAINER = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}


def full_scale(pixels: Pixels) -> float:
    """Return the value of white: the integer type's largest, or 1."""
    return float(np.iinfo(pixels.dtype).max) if np.issubdtype(pixels.dtype, np.integer) else 1.0


def widened(pixels: Pixels, white: int) -> Pixels:
    """Return integers of which ``white`` is the largest over the whole range of their type, rounded: white is white."""
    largest = int(np.iinfo(pixels.dtype).max)
    return ((pixels.astype(np.uint32) * largest + white // 2) // white).astype(pixels.dtype)


def has_alpha(pixels: Pixels) -> bool:
    """Whether the last channel is an alpha channel."""
    return pixels.shape[2] in (2, 4)


def color_count(pixels: Pixels) -> int:
    """Return how many of the channels are colors: 1 or 3."""
    return int(pixels.shape[2]) - has_alpha(pixels)


def to_tensor(pixels: Pixels) -> Tensor:
    """Turn ``(h, W, C)`` pixels into ``(C, h, W)`` float32 in ``[0, 1]``."""
    values = pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(full_scale(pixels))
    return torch.from_numpy(np.ascontiguousarray(values)).clamp_(0, 1)


def to_pixels(image: Tensor, dtype: DTypeLike) -> Pixels:
    """Turn ``(C, h, W)`` into ``(h, W, C)`` pixels of a dtype, clamped to ``[0, 1]`` and rounded where it is an integer's."""
    values = image.clamp(0, 1).permute(1, 2, 0).numpy()
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values * np.float32(np.iinfo(dtype).max))
    return values.astype(dtype)


def to_eight_bit(pixels: Pixels) -> Pixels:
    """Round integer pixels to 8 bit."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def on_white(pixels: Pixels) -> Pixels:
    """Lay integer pixels with alpha on white; others are returned as they are."""
    if not has_alpha(pixels):
        return pixels
    white = np.iinfo(pixels.dtype).max
    wide = np.uint16 if white == 255 else np.uint32  # white squared, and half of white, just fit
    alpha = pixels[..., -1:].astype(wide)
    return ((pixels[..., :-1] * alpha + white * (white - alpha) + white // 2) // white).astype(pixels.dtype)


def to_rgb(pixels: Pixels) -> Pixels:
    """Return integer pixels as RGB without alpha: on white, gray three times (as a view, which takes no memory)."""
    colors = on_white(pixels)
    return np.broadcast_to(colors, (*colors.shape[:2], 3))


def from_pil(image: Image.Image) -> tuple[Pixels, bool]:
    """Return an image's pixels, and whether its ICC profile still describes them.

    Bilevel images become gray, palettes RGB or RGBA, CMYK and the like RGB (through the profile, where a CMYK image has one).
    """
    key = image.info.get("transparency")  # of gray, the value that is transparent
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        gray = _deep_gray(np.asarray(image))
        if isinstance(key, int):
            gray = np.concatenate([gray, np.where(gray == key, 0, 65535).astype(np.uint16)], axis=-1)
        return gray, True
    if image.mode == "CMYK":
        return np.asarray(_from_cmyk(image)), False
    if isinstance(key, int) and image.mode in ("1", "L"):
        key = 255 * bool(key) if image.mode == "1" else key  # which some versions of Pillow give as it stands
        gray = np.asarray(image.convert("L"))
        return np.stack([gray, np.where(gray == key, 0, 255).astype(np.uint8)], axis=-1), True
    if "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in _PLAIN_MODES:
        image = image.convert(_PLAINER.get(image.mode, "RGB"))
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None], True


def to_pil(pixels: Pixels) -> Image.Image:
    """Return a Pillow image of mode L, LA, RGB, RGBA or I;16; Pillow has no mode for 16-bit colors."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def fitting_pixels(pixels: Pixels, kind: Format) -> tuple[Pixels, list[str]]:
    """Return what a format can hold of the pixels, and what it can't."""
    lost = []
    if pixels.dtype == np.uint16 and not kind.sixteen_bit:
        pixels = to_eight_bit(pixels)
        lost.append("more than 8 bit")
    if has_alpha(pixels) and not kind.alpha:
        if bool((pixels[..., -1] < full_scale(pixels)).any()):
            lost.append("transparency, which is white now")
        pixels = on_white(pixels)
    if becomes_color(pixels, kind):
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels, lost


def becomes_color(pixels: Pixels, kind: Format) -> bool:
    """Say whether gray pixels with alpha are written as RGBA: few readers know them with 16 bit in TIFF."""
    return pixels.shape[2] == 2 and (not kind.gray or (kind.name == "TIFF" and pixels.dtype == np.uint16))


def unpack_image(image: Any) -> tuple[list[Pixels], Callable[[list[Pixels]], Any]]:
    """Return the pixels of each image that was given, and a function that makes the same kind of other pixels."""
    if isinstance(image, Image.Image):
        return _unpack_pil(image)
    if isinstance(image, np.ndarray):
        pixels = image[..., None] if image.ndim == 2 else image
        check_pixels(pixels)
        return [pixels], lambda results: results[0][..., 0] if image.ndim == 2 else results[0]
    if isinstance(image, Tensor):
        return _unpack_tensor(image)
    raise TypeError(f"image must be a PIL image, a numpy array or a torch tensor, got {type(image).__name__}")


def check_pixels(pixels: Pixels) -> None:
    """Check that an array holds an image; a ValueError names what is wrong."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or min(pixels.shape) < 1:
        raise ValueError(f"an image has shape (H, W) or (H, W, 1 to 4), with H and W at least 1, got {pixels.shape}")
    if pixels.dtype in (np.uint8, np.uint16):
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"pixels must be uint8, uint16 or floating point in [0, 1], got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    # Resampling overshoots a little, which is clamped; NaN fails both comparisons.
    if not (low >= -0.5 and high <= 1.5):
        raise ValueError(f"floating-point pixels must lie in [0, 1], got {low:g} to {high:g}; divide 8-bit ones by 255")


def _unpack_pil(image: Image.Image) -> tuple[list[Pixels], Callable[[list[Pixels]], Any]]:
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    pixels, profile_fits = from_pil(image)

    def give_back(results: list[Pixels]) -> Image.Image:
        result = to_pil(results[0])
        # Texts are those of PNG, such as the parameters of a generated picture; how the old pixels were packed is none.
        result.info = {
            key: value
            for key, value in image.info.items()
            if key in ("dpi", "exif", "xmp")
            or (isinstance(value, str) and key != "compression")
            or (key == "icc_profile" and profile_fits)
        }
        return result

    return [pixels], give_back


def _unpack_tensor(image: Tensor) -> tuple[list[Pixels], Callable[[list[Pixels]], Any]]:
    if image.ndim not in (3, 4) or image.shape[-3] not in (1, 2, 3, 4):
        raise ValueError(f"an image tensor has shape (3, H, W) or (B, 3, H, W), got {tuple(image.shape)}")
    # numpy has no bfloat16, and a CUDA tensor no array.
    values = image.detach().cpu()
    values = values.float() if values.dtype == torch.bfloat16 else values
    batch = [one.permute(1, 2, 0).numpy() for one in (values if image.ndim == 4 else values[None])]
    for pixels in batch:
        check_pixels(pixels)

    def give_back(results: list[Pixels]) -> Tensor:
        tensor = torch.stack([torch.from_numpy(pixels).permute(2, 0, 1) for pixels in results])
        return (tensor if image.ndim == 4 else tensor[0]).contiguous().to(image.device, image.dtype)

    return batch, give_back


def _deep_gray(gray: NDArray[Any]) -> Pixels:
    if not np.issubdtype(gray.dtype, np.integer):
        raise ValueError("it holds floating-point values of unknown range: convert it to 8 or 16 bit")
    low, high = int(gray.min()), int(gray.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"its values span [{low}, {high}], more than 16 bit: convert it to 8 or 16 bit")
    return gray.astype(np.uint16)[..., None]


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain conversion is what every viewer without color management does
    return image.convert("RGB")
