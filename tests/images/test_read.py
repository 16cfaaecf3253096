import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from fluxsr.images import Picture, read_picture, read_size, write_picture
from fluxsr.images.formats import WRITTEN
from fluxsr.images.metadata import upright

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = [".png", ".tif"]


def photo(shape=(24, 32, 3), dtype=np.uint8, seed=0):
    """Smooth colors, which lossy formats keep."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    channels = [np.sin(3 * x + c) * np.cos(2 * y - c) / 2 + 0.5 for c in range(shape[2])]
    return (np.stack(channels, axis=-1) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_eight_bits_round_trip_with_metadata(tmp_path, suffix, channels):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:21 00:00:00"
    picture = Picture(photo((24, 32, channels)), SRGB, exif, (300.0, 300.0))
    path = tmp_path / f"picture{suffix}"
    write_picture(path, picture)
    back = read_picture(path)
    expected = picture.pixels
    rgb = suffix in (".webp", ".avif")
    if suffix in (".jpg", ".jpeg", ".jfif", ".bmp") and channels in (2, 4):
        alpha = expected[..., -1:] / 255
        expected = expected[..., :-1] * alpha + 255 * (1 - alpha)
    if rgb and channels == 2:
        expected = expected[..., [0, 0, 0, 1]]
    if rgb and channels == 1:
        expected = np.repeat(expected, 3, axis=2)
    exact = suffix in (".png", ".tif", ".tiff") or (suffix == ".bmp" and channels in (1, 3))
    visible = back.pixels[..., -1] > 20 if rgb and channels in (2, 4) else np.ones(expected.shape[:2], bool)
    assert back.pixels.shape == expected.shape and back.pixels.dtype == np.uint8
    assert np.abs(back.pixels[visible].astype(float) - expected[visible]).max() <= (0 if exact else 16)
    if suffix != ".bmp":
        assert back.icc_profile == SRGB
        assert back.exif[0x010F] == "Maker" and back.exif.get(0x0112, 1) == 1
        assert back.exif.get_ifd(0x8769)[0x9003] == "2026:11:21 00:00:00"
    assert back.dpi == pytest.approx((300, 300), abs=0.1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", DEEP)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("height", [1, 150])
def test_sixteen_bits_round_trip_with_metadata(tmp_path, suffix, channels, height):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:21 00:00:00"
    pixels = np.random.default_rng(0).integers(0, 65536, (height, 33, channels), np.uint16)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, Picture(pixels, SRGB, exif, (300.0, 150.0)))
    back = read_picture(path)
    expected = pixels[..., [0, 0, 0, 1]] if suffix == ".tif" and channels == 2 else pixels
    assert back.pixels.dtype == np.uint16 and np.array_equal(back.pixels, expected)
    assert back.icc_profile == SRGB and back.dpi == pytest.approx((300, 150), abs=0.1)
    assert back.exif[0x010F] == "Maker" and back.exif.get_ifd(0x8769)[0x9003] == "2026:11:21 00:00:00"


@pytest.mark.parametrize("suffix", DEEP)
def test_other_readers_agree_on_sixteen_bits(tmp_path, suffix):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 65536, (70, 20, 3), np.uint16)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, Picture(pixels, SRGB))
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1], pixels)
    with Image.open(path) as image:
        assert image.size == (20, 70) and np.abs(np.asarray(image, int) - pixels / 257).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_formats_of_eight_bits_take_the_upper_ones(tmp_path, suffix):
    deep = photo(dtype=np.uint16)
    write_picture(tmp_path / f"a{suffix}", Picture(deep))
    back = read_picture(tmp_path / f"a{suffix}").pixels
    assert back.dtype == np.uint8 and np.abs(back.astype(float) - deep / 257).max() < 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_orientation_is_applied(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo()).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    picture = read_picture(path)
    from PIL import ImageOps

    with Image.open(path) as image:
        assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(image)))
    assert read_size(path) == picture.pixels.shape[:2]
    write_picture(path, picture)
    assert read_picture(path).pixels.shape == picture.pixels.shape  # and not turned again


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_colors_are_turned_too(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    write_picture(tmp_path / "a.png", Picture(pixels))
    data = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, upright(pixels, orientation))


def test_cmyk_becomes_rgb_without_its_profile(tmp_path):
    Image.new("RGB", (8, 8), (200, 30, 30)).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=SRGB, quality=100)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.icc_profile is None
    assert np.abs(picture.pixels.astype(int) - (200, 30, 30)).max() < 12


def test_exif_gets_the_new_size(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0xA002: 24, 0xA003: 32})
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    picture = read_picture(tmp_path / "a.jpg")
    write_picture(tmp_path / "b.jpg", replace(picture, pixels=photo((48, 64, 3))))
    written = read_picture(tmp_path / "b.jpg").exif.get_ifd(0x8769)
    assert (written[0xA002], written[0xA003]) == (64, 48)


def test_contents_decide_and_not_the_suffix(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_picture(tmp_path / "a.jpg").pixels, photo())


def test_frames_are_counted(tmp_path):
    pages = [Image.fromarray(photo())] * 3
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read_picture(tmp_path / "a.tif").frames == 3


def test_a_bomb_is_refused_by_its_header(tmp_path):
    buffer = io.BytesIO()
    Image.new("1", (20000, 20000)).save(buffer, "PNG")
    (tmp_path / "bomb.png").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"bomb.png: it has 20000x20000 pixels, 400.0 million.*--max_pixels"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", r"a.png is empty \(0 bytes\)"),
        (b"no image", "can't read .*a.png: it is no picture of a known format"),
    ],
)
def test_unreadable_files(tmp_path, contents, message):
    (tmp_path / "a.png").write_bytes(contents)
    with pytest.raises(ValueError, match=message):
        read_picture(tmp_path / "a.png")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ValueError, match=path.name):
            read_picture(path)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"the name must end in one of .png"):
        write_picture(tmp_path / "a.xyz", Picture(photo()))
    with pytest.raises(ValueError, match="WEBP holds at most 16383 pixels a side, not 17000x1"):
        write_picture(tmp_path / "a.webp", Picture(np.zeros((1, 17000, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    write_picture(path, Picture(photo()))
    before = path.read_bytes()

    def interrupted(self, file, **options):
        file.write(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(error):
        write_picture(path, Picture(photo()))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
