import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.images.convert import from_pil, to_pixels, to_tensor, unpack_image


def test_a_transparent_palette_gets_alpha():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    image.info["transparency"] = 1
    pixels, _ = from_pil(image)
    assert pixels.shape == (4, 4, 4) and pixels[0, 0].tolist() == [255, 0, 0, 255] and pixels[1, 1, 3] == 0


def test_gray_with_a_transparent_value_gets_alpha():
    image = Image.new("L", (4, 4), 7)
    image.putpixel((0, 0), 9)
    image.info["transparency"] = 9
    pixels, _ = from_pil(image)
    assert pixels.shape == (4, 4, 2) and pixels[0, 0].tolist() == [9, 0] and pixels[1, 1].tolist() == [7, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"an image has shape \(H, W\) or \(H, W, 1 to 4\).*got \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), "with H and W at least 1"),
        (np.zeros((4, 4), np.int32), "must be uint8, uint16 or floating point in .* got int32"),
        (np.full((4, 4), 200.0), "must lie in .* got 200 to 200; divide 8-bit ones by 255"),
        (np.full((4, 4), np.nan), "must lie in .* got nan to nan"),
        (torch.zeros(5, 4, 4), r"an image tensor has shape .* got \(5, 4, 4\)"),
        (torch.zeros(4), r"an image tensor has shape .* got \(4,\)"),
        (Image.new("F", (4, 4)), "floating-point values of unknown range"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), r"its values span \[70000, 70000\]"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(ValueError, match=message):
        unpack_image(image)


def test_rows_and_pixels_are_inverse():
    for dtype in (np.uint8, np.uint16):
        pixels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1, 1)
        assert np.array_equal(to_pixels(to_tensor(pixels), dtype), pixels)
    assert to_pixels(torch.tensor([[[-1.0, 2.0]]]), np.uint8).ravel().tolist() == [0, 255]
