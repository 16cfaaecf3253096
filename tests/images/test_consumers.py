"""Whoever reads a picture reads the same: training, evaluation, prediction and upscaling, whatever the file."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fluxsr.data import BicubicDegradation, LRFolder, PairedFolders, PhotoFolder
from fluxsr.evaluation import open_folders
from fluxsr.images import Picture, read_picture, read_size, write_picture
from fluxsr.images.convert import to_rgb, to_tensor
from fluxsr.inference.batch import upscale_files

SIZE = (16, 24)
EIGHT = [".png", ".jpg", ".tif", ".webp"]


def photo(channels: int, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 24
    planes = [0.2 + 0.6 * x, 0.1 + 0.7 * y, 0.9 - 0.4 * (x + y), 0.3 + 0.7 * x]
    if channels == 2:
        planes = [planes[0], planes[3]]
    return (np.stack(planes[:channels], axis=-1) * np.iinfo(dtype).max).round().astype(dtype)


def save_pillow(path, mode, **options):
    image = Image.fromarray(photo({"L": 1, "RGBA": 4}.get(mode, 3)).squeeze())
    if mode in ("P", "CMYK"):
        image = image.convert(mode)
    lossless = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    image.save(path, **lossless, **options)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


CASES = {
    **{
        f"{mode} {end}": (end, lambda path, mode=mode: save_pillow(path, mode))
        for mode in ("L", "RGB")
        for end in EIGHT
    },
    **{f"RGBA {end}": (end, lambda path: save_pillow(path, "RGBA")) for end in (".png", ".tif", ".webp")},
    **{f"P {end}": (end, lambda path: save_pillow(path, "P")) for end in (".png", ".tif")},
    **{f"CMYK {end}": (end, lambda path: save_pillow(path, "CMYK")) for end in (".jpg", ".tif")},
    **{
        f"16 bit, {channels} channels {end}": (
            end,
            lambda path, channels=channels: write_picture(path, Picture(photo(channels, np.uint16))),
        )
        for channels in (1, 3, 4)
        for end in (".png", ".tif")
    },
    "turned .jpg": (".jpg", lambda path: save_pillow(path, "RGB", exif=turned())),
    "turned .png": (".png", lambda path: save_pillow(path, "RGB", exif=turned())),
}


@pytest.mark.parametrize("name", CASES)
def test_all_read_the_same(tmp_path, monkeypatch, name) -> None:
    suffix, save = CASES[name]
    folder = tmp_path / "photos"
    folder.mkdir()
    path = folder / f"a{suffix}"
    save(path)
    picture = read_picture(path)
    expected = to_tensor(to_rgb(picture.pixels))
    assert expected.shape == (3, *read_size(path)) == (3, *(SIZE[::-1] if "turned" in name else SIZE))
    assert picture.pixels.dtype == (np.uint16 if "16 bit" in name else np.uint8)

    degradation = BicubicDegradation(1)
    testset = open_folders(folder, folder, scale=1)
    seen = {
        "photos": PhotoFolder(folder, crop=None, scale=1, degradation=degradation)[0].hr_image,
        "pairs": PairedFolders(folder, folder, crop=None, scale=1)[0].lr_image,
        "prediction": LRFolder(folder)[0].lr_image,
        "evaluation's HR": testset.hr_image(path.name)[0],
        "evaluation's LR": testset.lr_image(path.name)[0],
    }
    for consumer, image in seen.items():
        assert torch.equal(image, expected), consumer
    # Upscaling keeps alpha.
    handed = []

    class Recorder:
        device = torch.device("cpu")

        def upscale_pixels(self, pixels, **options):
            handed.append(pixels)
            return pixels

    outcomes = list(upscale_files([str(folder)], str(tmp_path / "out"), scale=1, format="png", load=Recorder))
    assert not any(outcome.error for outcome in outcomes)
    assert np.array_equal(handed[0], picture.pixels)
    if "RGBA" in name or "4 channels" in name:
        assert handed[0].shape[2] == 4
    assert np.array_equal(read_picture(tmp_path / "out" / "a.png").pixels, picture.pixels)


@pytest.mark.parametrize(
    "name", [name for name in CASES if ".jpg" not in name and "CMYK" not in name and "turned" not in name]
)
def test_the_values_are_those_that_were_written(tmp_path, name) -> None:
    suffix, save = CASES[name]
    save(tmp_path / f"a{suffix}")
    read = read_picture(tmp_path / f"a{suffix}").pixels
    if name.startswith("P "):
        assert np.abs(read.astype(int) - photo(3)).mean() < 20  # a palette has few colors
        return
    channels = 1 if name.startswith("L") or "1 channel" in name else 4 if "RGBA" in name or "4 channel" in name else 3
    written = photo(channels, read.dtype.type)
    if suffix == ".webp" and channels == 1:  # which knows no gray
        written = np.repeat(written, 3, axis=2)
        assert np.abs(read.astype(int) - written).max() <= 2
        return
    assert np.array_equal(read, written)


@pytest.mark.parametrize("channels", [3, 4])
def test_lzw_at_16_bit_needs_no_further_package(tmp_path, channels) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = photo(channels, np.uint16)
    order = [2, 1, 0, 3][:channels]
    cv2.imwrite(str(tmp_path / "a.tif"), pixels[..., order], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    read = read_picture(tmp_path / "a.tif").pixels
    assert read.dtype == np.uint16 and np.array_equal(read, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_16_bit_tiff_is_turned_once(tmp_path, orientation) -> None:
    from fluxsr.images.metadata import upright

    pixels = photo(3, np.uint16)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=tags)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, upright(pixels, orientation))
