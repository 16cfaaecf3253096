"""Colors that a file says in numbers, and profiles that fit what is written."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from fluxsr.images import Picture, read_picture, write_picture
from fluxsr.images.profiles import cicp_profile, fitting_profile, gamma_profile
from tests.images.test_matrix import png_file

RAMP = np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
SRGB = ImageCms.createProfile("sRGB")


def seen(pixels, profile: bytes | None) -> np.ndarray:
    """What a viewer with color management shows, in sRGB."""
    image = Image.fromarray(pixels.squeeze())
    if profile is None:
        return np.asarray(image.convert("RGB")).astype(int)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    # Optimized, lcms would resample a gray curve to 33 points, which is far off near black.
    flags = ImageCms.Flags.NOOPTIMIZE
    return np.asarray(ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB", flags=flags)).astype(int)


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_gamma_is_seen_the_same_in_every_format(tmp_path, suffix, colors, gamma) -> None:
    chunk = (b"gAMA", struct.pack(">I", round(100_000 / gamma)))
    png_file(tmp_path / "a.png", RAMP[..., :colors], 0 if colors == 1 else 2, 8, chunk)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.png"))
    back = read_picture(tmp_path / f"b{suffix}")
    assert back.icc_profile is not None
    assert back.icc_profile[16:20] == (b"GRAY" if back.pixels.shape[2] == 1 else b"RGB ")
    codec = np.abs(back.pixels.astype(int) - RAMP[..., : back.pixels.shape[2]]).max()
    assert codec <= (0 if suffix in (".png", ".tif") else 2)
    wrong = np.abs(seen(back.pixels, back.icc_profile) - srgb((back.pixels / 255) ** gamma))
    assert wrong.max() < 0.6  # half a level is rounding, the rest the profile's 8-bit gamma


@pytest.mark.parametrize(
    "chunks", [[], [(b"gAMA", struct.pack(">I", 45455))], [(b"sRGB", b"\0"), (b"gAMA", b"\0\1\0\0")]]
)
def test_what_is_srgb_gets_no_profile(tmp_path, chunks) -> None:
    png_file(tmp_path / "a.png", RAMP, 2, 8, *chunks)
    picture = read_picture(tmp_path / "a.png")
    assert picture.icc_profile is None and picture.cicp is None


def test_cicp_stays_in_png_of_both_depths(tmp_path) -> None:
    png_file(tmp_path / "a.png", RAMP, 2, 8, (b"cICP", bytes([9, 16, 0, 1])))
    picture = read_picture(tmp_path / "a.png")
    assert picture.cicp == bytes([9, 16, 0, 1])
    for pixels in (picture.pixels, picture.pixels.astype(np.uint16) * 257):
        write_picture(tmp_path / "b.png", Picture(pixels, cicp=picture.cicp))
        assert read_picture(tmp_path / "b.png").cicp == picture.cicp


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".avif", ".bmp"])
def test_high_dynamic_range_is_refused_where_it_can_not_be_said(tmp_path, suffix) -> None:
    with pytest.raises(ValueError, match=r"HDR \(PQ\)"):
        write_picture(tmp_path / f"a{suffix}", Picture(RAMP, cicp=bytes([9, 16, 0, 1])))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cicp", [(1, 13, 0, 0), (1, 13, 6, 1)])
def test_a_range_or_matrix_of_video_is_refused_where_it_can_not_be_said(tmp_path, cicp) -> None:
    write_picture(tmp_path / "a.png", Picture(RAMP, cicp=bytes(cicp)))
    picture = read_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"matrix {cicp[2]} and range {cicp[3]}"):
        write_picture(tmp_path / "a.tif", picture)


def test_a_wide_gamut_becomes_a_profile(tmp_path) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    write_picture(tmp_path / "a.tif", Picture(red, cicp=bytes([12, 13, 0, 1])))
    profile = read_picture(tmp_path / "a.tif").icc_profile
    assert seen(red, profile)[0, 0, 0] > 212  # P3's red of this value is brighter than sRGB's
    assert cicp_profile(bytes([1, 13, 0, 1]), gray=False) is None


def test_what_is_no_color_gives_no_profile() -> None:
    assert gamma_profile(1.0, [0.3, 0, 0.3, 0, 0.3, 0, 0.3, 0], gray=False) is None
    assert gamma_profile(1.0, [0.3] * 8, gray=False) is None
    assert gamma_profile(1e6, None, gray=False) is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_a_gray_profile_never_goes_into_a_file_of_colors(tmp_path, channels, dtype, suffix) -> None:
    profile = gamma_profile(1.5, None, gray=True)
    write_picture(tmp_path / f"a{suffix}", Picture(np.full((4, 4, channels), 99, dtype), profile))
    back = read_picture(tmp_path / f"a{suffix}")
    assert back.icc_profile[16:20] == (b"GRAY" if back.pixels.shape[2] < 3 else b"RGB ")


def test_profiles_of_other_colors_are_left_out(tmp_path) -> None:
    cmyk = bytes(16) + b"CMYK" + bytes(108)
    assert fitting_profile(cmyk, 3) is None
    assert write_picture(tmp_path / "a.png", Picture(RAMP, cmyk)) == ["the color profile"]
