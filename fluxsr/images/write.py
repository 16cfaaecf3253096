"""Writes picture files whole or not at all, with all metadata that the format can hold."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from fluxsr.atomic import replacing
from fluxsr.images import sixteen_bit, tiff
from fluxsr.images.convert import Pixels, full_scale, has_alpha, on_white, to_eight_bit, to_pil, to_pixels
from fluxsr.images.formats import Format, check_format, format_of
from fluxsr.images.metadata import LONGEST_SEGMENT, exif_to_write, iptc_segment, xmp_to_write
from fluxsr.images.picture import Picture
from fluxsr.images.png_chunks import info_to_write
from fluxsr.images.profiles import cicp_profile, fitting_profile

QUALITY = 95
# From here on the colors keep their full resolution.
_FINE = 90
_JPEG_XMP = 65504  # bytes of XMP behind its name in a JPEG's segment


def write_picture(path: str | Path, picture: Picture, quality: int | None = None) -> list[str]:
    """Write a picture in the format of the path's ending; it appears under its name only when it is complete.

    JPEG, WebP, AVIF and BMP take 8 bit. JPEG and BMP have no alpha: transparent pixels are laid on white.

    Args:
        path: File to write, whose ending decides on the format.
        picture: Pixels of 8 or 16 bit, with what belongs to them.
        quality: 1 to 100 of JPEG, WebP and AVIF; 95 by default, and WebP that was lossless stays so. From 90 on the colors
            of JPEG and AVIF have full resolution (4:4:4).

    Returns:
        What the format can't hold, in words.

    Raises:
        ValueError: For an unknown ending, other pixels, more of them than the format takes, or colors that it can't say.
        OSError: If it can't be written.
    """
    path = Path(path)
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"can't write {path}: pixels must be uint8 or uint16, got {picture.pixels.dtype}")
    height, width = picture.pixels.shape[:2]
    kind = format_of(path)
    pixels, lost = _fitting(picture.pixels, kind)
    check_format(path, height, width, pixels.shape[2] * pixels.itemsize)
    profile = _profile(path, picture, kind, pixels.shape[2])
    if profile is not None and "profile" not in kind.keeps:
        profile = None
    if picture.icc_profile and profile is None:
        lost.append("the color profile")
    exif, without = exif_to_write(
        picture.exif,
        height,
        width,
        picture.dpi if kind.name in ("WEBP", "AVIF") else None,
        LONGEST_SEGMENT if kind.name == "JPEG" else None,
        orientation=kind.name != "AVIF",
    )
    if exif is not None and "EXIF" not in kind.keeps:
        exif, without = None, ["EXIF"]
    lost += without
    xmp = xmp_to_write(picture.xmp, height, width)
    if picture.xmp and (xmp is None or "XMP" not in kind.keeps or (kind.name == "JPEG" and len(xmp) > _JPEG_XMP)):
        xmp = None
        lost.append("XMP")
    text = dict(picture.text)
    comment = None
    if kind.name == "JPEG" and len(text.get("Comment", "").encode()) <= LONGEST_SEGMENT:
        comment = text.pop("Comment", None)
    segment = iptc_segment(picture.iptc) if picture.iptc else b""
    if picture.iptc and ("IPTC" not in kind.keeps or (kind.name == "JPEG" and not segment)):
        lost.append("IPTC")
    if text and "text" not in kind.keeps:
        lost.append(f"text ({', '.join(text)[:60]})")
    with replacing(path) as temporary, temporary.open("w+b") as file:
        if kind.name == "TIFF":
            tiff.write_tiff(file, pixels, profile, exif, picture.dpi, xmp, picture.iptc)
        elif kind.name == "PNG":
            lost += _write_png(file, pixels, picture, profile, exif, xmp)
        else:
            told = {"icc_profile": profile, "exif": exif, "xmp": xmp, "dpi": picture.dpi, "comment": comment}
            known = {name: value for name, value in told.items() if value is not None}
            options = _options(kind, quality, picture.lossless)
            if segment and kind.name == "JPEG":
                known["extra"] = segment
            to_pil(pixels).save(file, format=kind.name, **options, **known)
    return lost


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


def check_colors(path: Path, picture: Picture) -> None:
    """Check, before the work, that the format of a name can say what a picture's colors are.

    Raises:
        ValueError: If it can't.
    """
    _profile(path, picture, format_of(path), picture.pixels.shape[2])


def _profile(path: Path, picture: Picture, kind: Format, channels: int) -> bytes | None:
    """Return the profile to write.

    Raises:
        ValueError: If the format can't say what the colors are.
    """
    channels = channels if kind.gray else 3
    if picture.cicp is not None and kind.name != "PNG":  # which goes before a profile
        try:
            profile = cicp_profile(picture.cicp, channels < 3)
        except ValueError as error:
            raise ValueError(f"can't write {path}: {error}") from None
        if profile is not None and "profile" not in kind.keeps:
            raise ValueError(f"can't write {path}: {kind.name} can't say which its colors are: write PNG")
        return profile
    return fitting_profile(picture.icc_profile, channels)


def _write_png(
    file: IO[bytes], pixels: Pixels, picture: Picture, profile: bytes | None, exif: bytes | None, xmp: bytes | None
) -> list[str]:
    info, lost = info_to_write(picture.text, xmp, picture.cicp)
    if pixels.dtype == np.uint16:
        sixteen_bit.write_png(file, pixels, profile, exif, picture.dpi, [chunk[:2] for chunk in info.chunks])
    else:
        told = {"icc_profile": profile, "exif": exif, "dpi": picture.dpi}
        to_pil(pixels).save(file, format="PNG", pnginfo=info, **{name: value for name, value in told.items() if value})
    return lost


def _options(kind: Format, quality: int | None, lossless: bool) -> dict[str, Any]:
    """Return Pillow's options for a quality."""
    if not kind.lossy:
        return {}
    if kind.name == "WEBP" and lossless and quality is None:
        return {"lossless": True, "exact": True}
    quality = QUALITY if quality is None else quality
    options: dict[str, Any] = {"quality": quality}
    if kind.name == "JPEG":
        options["subsampling"] = 0 if quality >= _FINE else 2
    if kind.name == "AVIF":
        options["subsampling"] = "4:4:4" if quality >= _FINE else "4:2:0"
    return options


def _fitting(pixels: Pixels, kind: Format) -> tuple[Pixels, list[str]]:
    """Return what a format can hold of the pixels, and what it can't."""
    lost = []
    if pixels.dtype == np.uint16 and not kind.sixteen_bit:
        pixels = to_eight_bit(pixels)
        lost.append("more than 8 bit")
    if has_alpha(pixels) and not kind.alpha:
        if bool((pixels[..., -1] < full_scale(pixels)).any()):
            lost.append("transparency, which is white now")
        pixels = on_white(pixels)
    # Few readers know 16-bit gray with alpha in TIFF.
    widen = not kind.gray or (kind.name == "TIFF" and pixels.dtype == np.uint16)
    if pixels.shape[2] == 2 and widen:
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels, lost
