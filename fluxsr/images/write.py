"""Writes picture files whole or not at all, with all metadata that the format can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from fluxsr.atomic import replacing
from fluxsr.images.convert import Pixels, becomes_color, fitting_pixels, to_pil, to_pixels
from fluxsr.images.formats import check_format
from fluxsr.images.metadata import LONGEST_SEGMENT, Picture, exif_tags, exif_to_write, iptc_segment, xmp_to_write
from fluxsr.images.png import write_png
from fluxsr.images.profiles import profile_to_write
from fluxsr.images.tiff import write_tiff

_JPEG_XMP = 65504  # bytes of XMP behind its name in a JPEG's segment


class PictureFile:
    """A file that a picture will be written to: what its format can hold is known before the work, and asked for once.

    The picture gives colors and what belongs to it; its pixels may be others than the result's, which has ``height`` and
    ``width``. Errors are those of :func:`write_picture`.
    """

    def __init__(self, path: str | Path, picture: Picture, height: int, width: int) -> None:
        self.path = Path(path)
        self.picture = picture
        pixels = picture.pixels
        if pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"can't write {path}: pixels must be uint8 or uint16, got {pixels.dtype}")
        self.kind = check_format(self.path, height, width, pixels.shape[2] * pixels.itemsize)
        channels = 4 if becomes_color(pixels, self.kind) else pixels.shape[2]
        self.profile = profile_to_write(self.path, self.kind, picture.cicp, picture.icc_profile, channels)

    def write(self, pixels: Pixels, quality: int | None = None) -> list[str]:
        """Write ``(H, W, C)`` pixels of the picture's dtype and channels, as :func:`write_picture`."""
        picture, kind, profile = self.picture, self.kind, self.profile
        height, width = pixels.shape[:2]
        pixels, lost = fitting_pixels(pixels, kind)
        if picture.icc_profile and profile is None:
            lost.append("the color profile")
        exif, without = exif_to_write(
            picture.exif,
            height,
            width,
            picture.dpi if kind.name in ("WEBP", "AVIF") else None,
            LONGEST_SEGMENT if kind.name == "JPEG" else None,
            kind.name != "AVIF",  # whose writer in Pillow puts EXIF that says so into ASCII
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
        with replacing(self.path) as temporary, temporary.open("w+b") as file:
            if kind.name == "TIFF":
                write_tiff(file, pixels, profile, exif_tags(exif) if exif else {}, picture.dpi, xmp, picture.iptc)
            elif kind.name == "PNG":
                lost += write_png(file, pixels, profile, exif, picture.dpi, xmp, picture.text, picture.cicp)
            else:
                told = {"icc_profile": profile, "exif": exif, "xmp": xmp, "dpi": picture.dpi, "comment": comment}
                known = {name: value for name, value in told.items() if value is not None}
                if segment and kind.name == "JPEG":
                    known["extra"] = segment
                known |= kind.options(quality, picture.lossless)
                to_pil(pixels).save(file, format=kind.name, **known)
        return lost


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
        ValueError: For an unknown ending, pixels of another dtype than uint8 and uint16, more of them than the format takes,
            or colors that it can't say.
        OSError: If it can't be written.
    """
    height, width = picture.pixels.shape[:2]
    return PictureFile(path, picture, height, width).write(picture.pixels, quality)


def write_image(path: str | Path, image: Tensor) -> None:
    """Write ``(3, H, W)`` in ``[0, 1]``, rounded to 8 bit; values outside are clamped.

    Raises:
        ValueError: For another shape, values that aren't finite, or as :func:`write_picture`.
        OSError: If it can't be written.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"can't write {path}: the image must be (3, H, W), got {tuple(image.shape)}")
    if not bool(image.isfinite().all()):
        raise ValueError(f"can't write {path}: the image has NaN or infinite values")
    write_picture(path, Picture(to_pixels(image.detach().float().cpu(), np.uint8)))
