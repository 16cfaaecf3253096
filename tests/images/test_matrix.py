"""Formats by modes by depths, written by others and compared with what was drawn: what a file says of its pixels is honored."""

from __future__ import annotations

import struct
import sys
import zlib
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from fluxsr.images import read_picture, read_size
from fluxsr.images.convert import full_scale

SIZE = (24, 36)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]] / 36
COLORS = [0.2 + 0.6 * X, 0.1 + 0.7 * Y, 0.9 - 0.4 * (X + Y)]
ALPHA = 0.3 + 0.7 * X

TIFFS = [
    case
    for case in product(
        ["u1", "u2", "f2", "f4"],
        [None, "zlib"],
        ["minisblack", "miniswhite", "rgb"],
        [None, "unassalpha", "assocalpha", "unspecified"],
        ["contig", "separate"],
        ["<", ">"],
    )
    if case[4] == "contig" or case[2] == "rgb" or case[3] is not None
]


@pytest.mark.parametrize(("dtype", "compression", "photometric", "extra", "planes", "order"), TIFFS)
def test_tiff(tmp_path, dtype, compression, photometric, extra, planes, order) -> None:
    colors = COLORS if photometric == "rgb" else COLORS[:1]
    stored = [1 - color for color in colors] if photometric == "miniswhite" else colors
    stored = [color * ALPHA for color in stored] if extra == "assocalpha" else stored
    values = np.stack([*stored, ALPHA] if extra else stored, axis=0 if planes == "separate" else -1)
    kind = np.dtype(order + dtype)
    values = (values * np.iinfo(kind).max).round() if kind.kind == "u" else values
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.ascontiguousarray(values.astype(kind)).squeeze(),
        photometric=photometric,
        planarconfig=planes if len(stored) + bool(extra) > 1 else None,
        extrasamples=[extra] if extra else None,
        compression=compression,
        byteorder=order,
        rowsperstrip=7,
    )
    pixels = read_picture(tmp_path / "a.tif").pixels
    expected = np.stack([*colors, ALPHA] if extra in ("unassalpha", "assocalpha") else colors, axis=-1)
    assert pixels.dtype == (np.uint8 if dtype == "u1" else np.uint16)
    assert pixels.shape == expected.shape
    # A step of 8 bit; of half precision; divided by the least alpha where it was multiplied.
    step = 1 / 255 if dtype == "u1" else 1 / 2000 if dtype == "f2" else 1 / 65535
    assert np.abs(pixels / full_scale(pixels) - expected).max() < 1.01 * step / (0.3 if extra == "assocalpha" else 1)


@pytest.mark.parametrize("photometric", [0, 1])
def test_lzw_of_16_bit_gray(tmp_path, photometric) -> None:
    """Of which tifffile reads the directory and another library the pixels."""
    pixels = (COLORS[0] * 65535).round().astype(np.uint16)
    stored = 65535 - pixels if photometric == 0 else pixels
    Image.fromarray(stored).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: photometric})
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags[262].overwrite(photometric)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], pixels)


def png_file(path, pixels, color_type, depth, *chunks) -> None:
    """Write a PNG by hand, with chunks before the pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = [
        chunk(b"IHDR", head),
        *(chunk(*one) for one in chunks),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("way", ["none", "alpha", "key"])
def test_png(tmp_path, depth, colors, way) -> None:
    largest = 2**depth - 1
    planes = [(plane * largest).round().astype(int) for plane in COLORS[:colors]]
    alpha = np.full(SIZE, largest)
    chunks = []
    if way == "alpha":
        alpha = (ALPHA * largest).round().astype(int)
    elif way == "key":  # the color of one pixel is transparent wherever it is
        key = [int(plane[5, 7]) for plane in planes]
        chunks.append((b"tRNS", struct.pack(f">{colors}H", *key)))
        alpha = np.where(np.all([plane == k for plane, k in zip(planes, key, strict=True)], axis=0), 0, largest)
    drawn = np.stack([*planes, alpha] if way != "none" else planes, axis=-1)
    stored = drawn if way == "alpha" else drawn[..., :colors]
    png_file(tmp_path / "a.png", stored, (0 if colors == 1 else 2) + (4 if way == "alpha" else 0), depth, *chunks)
    pixels = read_picture(tmp_path / "a.png").pixels
    assert pixels.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.array_equal(pixels, drawn)


@pytest.mark.parametrize(
    ("suffix", "options"), [(".tif", {}), (".jpg", {"quality": 95}), (".tif", {"compression": "jpeg"})]
)
def test_cmyk_without_profile(tmp_path, suffix, options) -> None:
    drawn = Image.fromarray((np.stack(COLORS, -1) * 255).round().astype(np.uint8))
    drawn.convert("CMYK").save(tmp_path / f"a{suffix}", **options)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.icc_profile is None
    assert np.abs(picture.pixels.astype(int) - np.asarray(drawn)).mean() < 4


@pytest.mark.parametrize(
    ("dtype", "values", "said"),
    [
        ("i1", [-5, 5], "signed"),
        ("i2", [-5, 5], "signed"),
        ("i2", [0, 30000], "signed"),
        ("i4", [0, 30000], "signed"),
        ("u4", [0, 2**20], "32 bit"),
        ("u4", [0, 30000], "32 bit"),
        ("f4", [0, 300], "of which white is not known"),
        ("f4", [0, np.nan], "of which white is not known"),
    ],
)
def test_ranges_that_are_not_known_are_refused(tmp_path, dtype, values, said) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([values] * 2, dtype), photometric="minisblack")
    with pytest.raises(ValueError, match=said) as refused:
        read_picture(tmp_path / "a.tif")
    assert "a.tif" in str(refused.value)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("photometric", ["separated", "cielab"])
def test_planes_of_other_colors_are_right_or_refused(tmp_path, photometric, dtype) -> None:
    stored = [1 - plane for plane in COLORS] + [0 * X] if photometric == "separated" else COLORS
    values = (np.stack(stored) * np.iinfo(dtype).max).round().astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, planarconfig="separate")
    if (photometric, dtype) == ("separated", "u1"):
        pixels = read_picture(tmp_path / "a.tif").pixels
        assert np.abs(pixels / 255 - np.stack(COLORS, axis=-1)).max() < 0.01
        return
    with pytest.raises(ValueError, match=r"separate planes|isn't known"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("photometric", [0, 1])
def test_twelve_bits_reach_white_or_are_refused(tmp_path, photometric) -> None:
    """Packed samples of 12 bit, which another library must unpack: their white is 4095."""
    levels = (COLORS[0] * 4095).round().astype(int)
    stored = 4095 - levels if photometric == 0 else levels
    bits = "".join(f"{value:012b}" for value in stored.ravel())
    data = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
    height, width = SIZE
    entries = [(256, 4, width), (257, 4, height), (258, 3, 12), (259, 3, 1), (262, 3, photometric), (273, 4, 122)]
    entries += [(277, 3, 1), (278, 4, height), (279, 4, len(data))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data)
    if find_spec("imagecodecs") is None:
        with pytest.raises(ValueError, match=r"12 bit.*imagecodecs"):
            read_picture(tmp_path / "a.tif")
        return
    pixels = read_picture(tmp_path / "a.tif").pixels
    assert pixels.dtype == np.uint16
    assert np.abs(pixels[..., 0] / 65535 - COLORS[0]).max() < 1 / 4095


def test_a_sound_tiff_of_uncompressed_ycbcr_is_not_called_damaged(tmp_path) -> None:
    values = np.asarray(Image.fromarray((np.stack(COLORS, -1) * 255).round().astype(np.uint8)).convert("YCbCr"))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="ycbcr")
    with pytest.raises(ValueError, match="YCbCr"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("white", [255, 1023, 65535])
def test_ppm_keeps_its_bits(tmp_path, white) -> None:
    drawn = (np.stack(COLORS, -1) * white).round().astype(">u2" if white > 255 else "u1")
    (tmp_path / "a.ppm").write_bytes(b"P6 # by hand\n36 24\n%d\n" % white + drawn.tobytes())
    pixels = read_picture(tmp_path / "a.ppm").pixels
    assert pixels.dtype == (np.uint16 if white > 255 else np.uint8)
    assert np.abs(pixels / full_scale(pixels) - drawn / white).max() < 1 / 65535


def test_every_further_format_is_read(tmp_path) -> None:
    drawn = Image.fromarray((np.stack(COLORS, -1) * 255).round().astype(np.uint8))
    drawn.save(tmp_path / "a.gif", save_all=True, append_images=[drawn])
    gif = read_picture(tmp_path / "a.gif")
    assert np.abs(gif.pixels[..., :3].astype(int) - np.asarray(drawn)).mean() < 12
    drawn.save(tmp_path / "a.avif", quality=95)
    assert np.abs(read_picture(tmp_path / "a.avif").pixels.astype(int) - np.asarray(drawn)).mean() < 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".avif", ".heic", ".jxl"])
def test_phones_formats_are_upright(tmp_path, suffix, orientation) -> None:
    if suffix == ".heic":
        # The encoder of older ones is lossier.
        pytest.importorskip("pillow_heif", minversion="1.0").register_heif_opener()
    if suffix == ".jxl":
        pytest.importorskip("pillow_jxl")
    drawn = Image.fromarray((np.stack(COLORS, -1) * 255).round().astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    drawn.save(tmp_path / f"a{suffix}", quality=95, exif=exif.tobytes())
    orientation = 1 if suffix == ".jxl" else orientation  # whose own orientation is the only one that counts
    from PIL import ImageOps

    drawn.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(drawn)).astype(int)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.pixels.shape == shown.shape
    assert read_size(tmp_path / f"a{suffix}") == shown.shape[:2]
    assert np.abs(picture.pixels - shown).mean() < 4


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "known format .PNG, JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEI"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "J"),
    ],
)
def test_sound_formats_that_are_not_read_are_not_called_damaged(tmp_path, start, named) -> None:
    (tmp_path / "a.png").write_bytes(start + bytes(200))
    with pytest.raises(ValueError, match=named) as refused:
        read_picture(tmp_path / "a.png")
    assert "damaged" not in str(refused.value)


def test_a_known_format_that_is_cut_off_is_called_damaged(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    with pytest.raises(ValueError, match="damaged PNG"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("name", ["a.avif", "a.heic", "a.jpg", "a.webp", "8.tif", "16.tif", "float.tif", "planes.tif"])
def test_a_file_of_any_format_that_is_cut_off_is_called_damaged(tmp_path, name, part) -> None:
    drawn = (np.stack(COLORS, -1) * 255).round().astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    path = tmp_path / name
    if path.suffix == ".tif":
        values = {"8": drawn, "16": drawn.astype(np.uint16) * 257, "float": (drawn / 255).astype(np.float32)}
        planes = np.ascontiguousarray(np.moveaxis(values["16"], -1, 0))
        shape = "separate" if path.stem == "planes" else "contig"
        tifffile.imwrite(path, values.get(path.stem, planes), photometric="rgb", planarconfig=shape)
    elif path.suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
        Image.fromarray(drawn).save(path)
    else:
        Image.fromarray(drawn).save(path)
    assert read_picture(path).pixels.shape == drawn.shape
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ValueError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_with_a_transparent_gray(tmp_path, depth) -> None:
    """The key is written in the file's own depth, and the pixels are widened."""
    levels = 2**depth
    gray = (np.arange(16) % levels).astype(np.uint8)
    bits = np.unpackbits(gray[:, None], axis=1)[:, 8 - depth :].reshape(-1)
    row = np.packbits(bits)[None]
    key = levels - 1
    png_file(tmp_path / "a.png", row, 0, depth, (b"tRNS", struct.pack(">H", key)))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:20] = struct.pack(">I", 16)  # the width counts pixels
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    pixels = read_picture(tmp_path / "a.png").pixels
    assert np.array_equal(pixels[0, :, 0], gray * (255 // (levels - 1)))
    assert np.array_equal(pixels[0, :, 1], np.where(gray == key, 0, 255))


@pytest.mark.parametrize(
    ("name", "module", "start"),
    [
        ("HEIC", "pillow_heif", b"\0\0\0\x18ftypheic"),
        ("JPEG XL", "pillow_jxl", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ],
)
def test_what_to_install_is_said(tmp_path, monkeypatch, name, module, start) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.png").write_bytes(start + bytes(100))
    with pytest.raises(ValueError, match=rf"it is {name}, which needs a further library: pip install 'fluxsr\["):
        read_picture(tmp_path / "a.png")


def test_a_long_text_does_not_cost_the_picture(tmp_path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "node " * 600_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    assert len(read_picture(tmp_path / "a.png").text["workflow"]) == 3_000_000
