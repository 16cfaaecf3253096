"""The one writer of picture files: whole or not at all, with profile, EXIF and resolution, as far as the format has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from fluxsr.atomic import replacing
from fluxsr.images import sixteen_bit, tiff
from fluxsr.images.convert import Pixels, on_white, to_eight_bit, to_pil, to_pixels
from fluxsr.images.formats import Format, check_format, format_of
from fluxsr.images.metadata import exif_to_write, profile_for
from fluxsr.images.picture import Picture


def write_picture(path: str | Path, picture: Picture) -> None:
    """Write a picture in the format of the path's ending; it appears under its name only when it is complete.

    JPEG, WebP and BMP take 8 bit. JPEG and BMP have no alpha: transparent pixels are laid on white.

    Args:
        path: File to write, whose ending decides on the format.
        picture: Pixels of 8 or 16 bit, with what belongs to them.

    Raises:
        ValueError: For an unknown ending, other pixels, or more of them than the format takes.
        OSError: If it can't be written.
    """
    path = Path(path)
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"can't write {path}: pixels must be uint8 or uint16, got {picture.pixels.dtype}")
    height, width = picture.pixels.shape[:2]
    check_format(path, height, width)
    kind = format_of(path)
    pixels = _fitting(picture.pixels, kind)
    profile = profile_for(picture.icc_profile, pixels.shape[2] if kind.gray else 3)
    exif = exif_to_write(picture.exif, height, width)
    with replacing(path) as temporary, temporary.open("w+b") as file:
        if kind.name == "TIFF":
            tiff.write_tiff(file, pixels, profile, exif, picture.dpi)
        elif pixels.dtype == np.uint16:
            sixteen_bit.write_png(file, pixels, profile, exif, picture.dpi)
        else:
            metadata = {"icc_profile": profile, "exif": exif, "dpi": picture.dpi}
            known = {name: value for name, value in metadata.items() if value is not None}
            to_pil(pixels).save(file, format=kind.name, **kind.options, **known)


def write_image(path: str | Path, image: Tensor) -> None:
    """Write ``(3, H, W)`` in ``[0, 1]``, rounded to 8 bit; values outside are clamped.

    Args:
        path: File to write, whose ending decides on the format.
        image: RGB image.

    Raises:
        ValueError: For another shape, values that aren't finite, or as :func:`write_picture`.
        OSError: If it can't be written.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"can't write {path}: the image must be (3, H, W), got {tuple(image.shape)}")
    if not bool(image.isfinite().all()):
        raise ValueError(f"can't write {path}: the image has NaN or infinite values")
    write_picture(path, Picture(to_pixels(image.detach().float().cpu(), np.uint8)))


def _fitting(pixels: Pixels, kind: Format) -> Pixels:
    """Return what a format can hold of the pixels."""
    pixels = pixels if kind.sixteen_bit else to_eight_bit(pixels)
    pixels = pixels if kind.alpha else on_white(pixels)
    # Few readers know 16-bit gray with alpha in TIFF.
    widen = not kind.gray or (kind.name == "TIFF" and pixels.dtype == np.uint16)
    if pixels.shape[2] == 2 and widen:
        return pixels[..., [0, 0, 0, 1]]
    return pixels
