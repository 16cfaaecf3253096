from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from fluxsr.images import Picture, check_format, read_picture, read_size, tiff, write_picture
from fluxsr.images.convert import unpack_image


def test_an_image_of_pillow_is_turned_upright_in_python(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    (pixels,), give_back = unpack_image(Image.open(tmp_path / "a.jpg"))
    assert pixels.shape == (6, 4, 3)
    give_back([pixels]).save(tmp_path / "b.jpg")
    assert read_picture(tmp_path / "b.jpg").pixels.shape == (6, 4, 3)


def test_an_image_of_pillow_keeps_what_it_tells_in_python(tmp_path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a tree, Seed: 968002204")
    texts.add_itxt("XML:com.adobe.xmp", XMP.replace(b'Orientation="6"', b'Orientation="1"').decode())
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png", pnginfo=texts, dpi=(300, 300))
    with Image.open(tmp_path / "a.png") as image:
        (pixels,), give_back = unpack_image(image)
        info = give_back([pixels]).info
    assert info["parameters"] == "a tree, Seed: 968002204" and b"Rating" in info["xmp"]
    assert info["dpi"] == pytest.approx((300, 300), abs=0.1)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r xmp:Rating="5" tiff:Orientation="6"/></x:xmpmeta>'


def told_of(tmp_path, **options):
    """A JPEG with all that one can tell."""
    exif = Image.Exif()
    exif[0x010F], exif[0x013B], exif[0x9C9B], exif[0x0112] = "Maker", "Jürgen 東京".encode(), b"t\0", 6
    exif.get_ifd(0x8769)[0xA434] = "Objektiv f__r J__rgen"  # Pillow writes ASCII alone
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif, xmp=XMP, dpi=(300, 300), **options)
    data = (tmp_path / "a.jpg").read_bytes()
    assert b"f__r J__rgen" in data
    (tmp_path / "a.jpg").write_bytes(data.replace(b"__", "ü".encode()))
    return read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_all_that_is_told_is_kept(tmp_path, suffix, deep) -> None:
    picture = told_of(tmp_path)
    pixels = picture.pixels.astype(np.uint16) * 257 if deep else picture.pixels
    lost = write_picture(tmp_path / f"b{suffix}", replace(picture, pixels=pixels))
    assert lost == (["more than 8 bit"] if deep and suffix not in (".png", ".tif") else [])
    back = read_picture(tmp_path / f"b{suffix}")
    assert back.pixels.shape == (8, 6, 3)  # upright, and not turned again
    assert back.exif[0x010F] == "Maker" and back.exif.get_ifd(0x8825)[1] == "N"
    assert "Jürgen 東京".encode() in (tmp_path / f"b{suffix}").read_bytes()
    assert back.exif.get_ifd(0x8769)[0xA434].encode("latin-1").decode() == "Objektiv für Jürgen"
    assert b'xmp:Rating="5"' in back.xmp and b'tiff:Orientation="1"' in back.xmp
    assert back.dpi == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("deep", [False, True])
def test_texts_of_png_are_kept(tmp_path, deep) -> None:
    texts = {"parameters": "a tree, Seed: 968002204", "Titel": "Zürich", "prompt": '{"1": "東京"}'}
    pixels = np.zeros((4, 4, 3), np.uint16 if deep else np.uint8)
    assert write_picture(tmp_path / "a.png", Picture(pixels, text=texts)) == []
    assert dict(read_picture(tmp_path / "a.png").text) == texts


def test_what_a_format_can_not_hold_is_said(tmp_path) -> None:
    picture = replace(told_of(tmp_path), text={"parameters": "a tree"}, icc_profile=b"\0" * 16 + b"RGB " + bytes(108))
    lost = write_picture(tmp_path / "b.bmp", picture)
    assert {"EXIF", "XMP", "the color profile", "text (parameters)"} <= set(lost)
    see_through = Picture(np.zeros((4, 4, 4), np.uint16))
    assert write_picture(tmp_path / "b.jpg", see_through) == ["more than 8 bit", "transparency, which is white now"]


# Record 2, data set 120 (caption) and 80 (byline), as agencies write them.
IPTC = b"\x1c\x02\x78\x00\x09A caption\x1c\x02\x50\x00\x06A name"


@pytest.mark.parametrize("first", [".jpg", ".tif"])
@pytest.mark.parametrize("second", [".jpg", ".tif", ".png", ".webp"])
def test_iptc_is_kept_or_said_to_be_lost(tmp_path, first, second) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert write_picture(tmp_path / f"a{first}", Picture(pixels, iptc=IPTC)) == []
    lost = write_picture(tmp_path / f"b{second}", read_picture(tmp_path / f"a{first}"))
    if second in (".png", ".webp"):
        assert lost == ["IPTC"]
    else:
        # A TIFF's may be filled up to whole numbers of 32 bit.
        assert lost == [] and (read_picture(tmp_path / f"b{second}").iptc or b"").rstrip(b"\0") == IPTC


def test_iptc_of_photoshop_and_of_numbers_is_read(tmp_path) -> None:
    long = IPTC + bytes(-len(IPTC) % 4)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((4, 4, 3), np.uint8),
        photometric="rgb",
        extratags=[(33723, 4, len(long) // 4, np.frombuffer(long, "<u4").tolist(), True)],
        byteorder="<",
    )
    assert (read_picture(tmp_path / "a.tif").iptc or b"").rstrip(b"\0") == IPTC
    lost = write_picture(tmp_path / "b.jpg", Picture(np.zeros((4, 4, 3), np.uint8), iptc=IPTC + bytes(70_000)))
    assert lost == ["IPTC"] and read_size(tmp_path / "b.jpg") == (4, 4)


@pytest.mark.parametrize("letters", [70_000, 40_000])
def test_a_comment_that_is_too_long_costs_itself_and_not_the_picture(tmp_path, letters) -> None:
    comment = "ü" * letters
    lost = write_picture(tmp_path / "a.jpg", Picture(np.zeros((4, 4, 3), np.uint8), text={"Comment": comment}))
    assert lost == ["text (Comment)"] and read_size(tmp_path / "a.jpg") == (4, 4)


def test_exif_that_is_too_long_costs_itself_and_not_the_picture(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x927C: b"\1" * 70_000, 0x9003: "2026:01:01 00:00:00"})
    picture = Picture(np.zeros((4, 4, 3), np.uint8), exif=exif, xmp=b"<x:xmpmeta>" + bytes(70_000))
    assert write_picture(tmp_path / "a.png", picture) == []
    assert write_picture(tmp_path / "a.jpg", picture) == ["the maker's notes in EXIF", "XMP"]
    back = read_picture(tmp_path / "a.jpg").exif
    assert back[0x010F] == "Maker" and back.get_ifd(0x8769)[0x9003] == "2026:01:01 00:00:00"


def test_xmp_of_a_gain_map_that_is_gone_goes_too(tmp_path) -> None:
    xmp = b'<x:xmpmeta><rdf hdrgm:Version="1.0"/></x:xmpmeta>'
    assert write_picture(tmp_path / "a.jpg", Picture(np.zeros((4, 4, 3), np.uint8), xmp=xmp)) == ["XMP"]


def test_a_tiff_that_pillow_does_not_open_tells_as_much(tmp_path) -> None:
    pixels = np.zeros((4, 4, 2), np.uint16)
    told = [(315, "s", 0, "Jürgen".encode(), True), (700, "B", len(XMP), XMP, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
        resolution=(118.110236, 118.110236),
        resolutionunit="CENTIMETER",
        extratags=told,
    )
    picture = read_picture(tmp_path / "a.tif")
    assert picture.exif[315].encode("latin-1").decode() == "Jürgen"
    assert picture.dpi == pytest.approx((300, 300), abs=0.1) and picture.xmp == XMP


@pytest.mark.parametrize("quality", [None, 95, 50])
@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_colors_keep_their_resolution_at_high_quality(tmp_path, suffix, quality) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 255  # red and blue lines, which are purple at half the resolution
    write_picture(tmp_path / f"a{suffix}", Picture(pixels), quality)
    wrong = np.abs(read_picture(tmp_path / f"a{suffix}").pixels.astype(int) - pixels).mean()
    assert (wrong < 12) == (quality != 50)


def test_lossless_webp_stays_lossless_unless_a_quality_is_given(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True)
    picture = read_picture(tmp_path / "a.webp")
    write_picture(tmp_path / "b.webp", picture)
    assert np.array_equal(read_picture(tmp_path / "b.webp").pixels, pixels)
    write_picture(tmp_path / "c.webp", picture, 80)
    assert not read_picture(tmp_path / "c.webp").lossless


def test_a_large_tiff_is_a_big_one(tmp_path, monkeypatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), np.uint16)
    monkeypatch.setattr(tiff, "_LARGEST_CLASSIC", 100)
    write_picture(tmp_path / "a.tif", Picture(pixels, dpi=(300, 300)))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff and np.array_equal(file.asarray(), pixels)
    back = read_picture(tmp_path / "a.tif")
    assert np.array_equal(back.pixels, pixels) and back.dpi == pytest.approx((300, 300))


def test_sizes_beyond_a_format_are_known_before_the_work() -> None:
    check_format(Path("a.tif"), 70_000, 70_000, 6)
    with pytest.raises(ValueError, match="4 GiB that BMP holds"):
        check_format(Path("a.bmp"), 40_000, 40_000, 3)


@pytest.mark.parametrize("options", [{"photometric": "rgb"}, {"photometric": "rgb", "ome": True}])
def test_a_description_of_the_old_pixels_layout_is_left_out(tmp_path, options) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint16), **options)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.exif[0x010E]
    write_picture(tmp_path / "b.tif", replace(picture, pixels=np.zeros((24, 24, 3), np.uint16)))
    assert tifffile.imread(tmp_path / "b.tif").shape == (24, 24, 3)
    assert 0x010E not in (read_picture(tmp_path / "b.tif").exif or {})


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    "block", [b"Exif\0\0MM\0*\0\0", b"Exif\0\0no TIFF at all", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"]
)
def test_damaged_exif_does_not_cost_the_picture(tmp_path, suffix, block) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / f"a{suffix}", exif=block)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.pixels.shape == (4, 6, 3) == (*read_size(tmp_path / f"a{suffix}"), 3)
    write_picture(tmp_path / "b.png", picture)
