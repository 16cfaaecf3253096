import numpy as np
import pytest
from PIL import Image

from fluxsr.images import Picture, read_picture, write_picture
from fluxsr.images.convert import unpack_image

GRAY_PROFILE = b"\0" * 16 + b"GRAY" + b"\0" * 108


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_text_in_utf8_comes_out_as_it_went_in(tmp_path, suffix) -> None:
    text = "© Jürgen 東京".encode()
    exif = Image.Exif()
    exif[0x8298], exif[0x010F] = text, "Maker"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    assert text in (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize(("suffix", "channels", "kept"), [(".png", 1, True), (".png", 3, False), (".webp", 1, False)])
def test_a_gray_profile_goes_into_gray_files_alone(tmp_path, suffix, channels, kept) -> None:
    write_picture(tmp_path / f"a{suffix}", Picture(np.zeros((4, 4, channels), np.uint8), GRAY_PROFILE))
    assert (read_picture(tmp_path / f"a{suffix}").icc_profile is not None) == kept


def test_an_image_of_pillow_is_turned_upright_in_python(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    (pixels,), give_back = unpack_image(Image.open(tmp_path / "a.jpg"))
    assert pixels.shape == (6, 4, 3)
    give_back([pixels]).save(tmp_path / "b.jpg")
    assert read_picture(tmp_path / "b.jpg").pixels.shape == (6, 4, 3)
