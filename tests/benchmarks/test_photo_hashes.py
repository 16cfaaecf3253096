"""No photo that the shipped models are measured on was trained on: by file, and by what it shows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

import fluxsr
from benchmarks.photo_hashes import difference_hash, distance, file_hash
from fluxsr.demo import PHOTOS, held_out_photo
from fluxsr.images import list_images

# Copies at a quarter of the size and JPEG quality 40 differ in up to 40 of 256 bits (40 training photos); of all test photos
# the one that is nearest to a training photo differs in 76.
SAME = 58


@pytest.fixture(scope="module")
def trained_on() -> list[dict[str, str]]:
    with (Path(fluxsr.__file__).parent / "assets" / "training_photos.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def nearest(image: Image.Image, photos: list[dict[str, str]]) -> int:
    own = difference_hash(image)
    return min(distance(own, int(photo["difference_hash"], 16)) for photo in photos)


def test_the_list_is_that_of_the_card(trained_on):
    assert len({photo["sha256"] for photo in trained_on}) == len(trained_on) == 235


def test_no_benchmark_photo_was_trained_on(assets, trained_on):
    tested = list_images(assets / "bench")
    assert len(tested) > 80
    files = {photo["sha256"] for photo in trained_on}
    assert not [path.name for path in tested if file_hash(path) in files]
    for path in tested:
        with Image.open(path) as image:
            assert nearest(image, trained_on) > SAME, f"{path.name} looks like a training photo"


@pytest.mark.parametrize("name", PHOTOS)
def test_no_photo_of_the_demo_was_trained_on(name, trained_on):
    pixels = (held_out_photo(name) * 255).round().byte().permute(1, 2, 0).numpy()
    assert nearest(Image.fromarray(pixels), trained_on) > SAME


def test_a_smaller_and_damaged_copy_would_be_found(assets, trained_on):
    listed = {photo["sha256"] for photo in trained_on}
    paths = [path for path in list_images(assets / "train")[::25] if file_hash(path) in listed]
    assert len(paths) >= 8
    for path in paths:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((image.width // 4, image.height // 4), Image.Resampling.BICUBIC)
        copy = io.BytesIO()
        small.save(copy, "JPEG", quality=40)
        assert nearest(Image.open(copy), trained_on) <= SAME
