import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fluxsr.data.degradation.jpeg import jpeg_compress

pytestmark = pytest.mark.usefixtures("one_thread")


def through_pillow(image: Tensor, quality: int) -> Tensor:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("size", [(64, 64), (97, 120), (33, 17)])
def test_equals_pillow_closely(photo_like, quality: int, size: tuple[int, int]) -> None:
    # Not exact: libjpeg's transforms are in integers, and where a coefficient tips over, a block moves by a quantizer
    # step. On average over pixels and channels both agree within 0.4 of 255, and well below the loss of JPEG itself.
    image = photo_like(*size, seed=quality)
    ours, theirs = jpeg_compress(image[None], quality)[0], through_pillow(image, quality)
    assert ours.shape == image.shape
    difference = float((ours - theirs).abs().mean()) * 255
    loss = float((image - theirs).abs().mean()) * 255
    assert difference < 0.4
    assert difference < 0.15 * loss


def test_real_photos_equal_pillow_closely(assets) -> None:
    paths = sorted((assets / "train" / "cid22").glob("*.jpg"))[:4]
    for path in paths:
        with Image.open(path) as file:
            image = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1).float()[:, :250, :251] / 255
        for quality in (30, 60, 95):
            difference = (jpeg_compress(image[None], quality)[0] - through_pillow(image, quality)).abs() * 255
            assert float(difference.mean()) < 0.2, (path.name, quality)


def test_a_constant_image_survives_and_quality_orders_the_loss(photo_like) -> None:
    gray = torch.full((1, 3, 20, 20), 128 / 255)
    assert torch.equal(jpeg_compress(gray, 30), gray)
    image = photo_like(64, 64)[None]
    losses = [float((jpeg_compress(image, quality) - image).abs().mean()) for quality in (5, 30, 60, 95)]
    assert losses == sorted(losses, reverse=True)


def test_the_input_is_left_alone(photo_like) -> None:
    image = photo_like(32, 32)[None]
    copy = image.clone()
    jpeg_compress(image, 40)
    assert torch.equal(image, copy)


def test_bad_quality(photo_like) -> None:
    image = photo_like(16, 16)[None]
    with pytest.raises(ValueError, match=r"1\.\.100, got 0"):
        jpeg_compress(image, 0)
