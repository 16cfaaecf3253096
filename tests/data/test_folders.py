import warnings

import pytest
import torch

from fluxsr.data import BicubicDegradation, LRFolder, PairedFolders, PhotoFolder
from fluxsr.images import list_images, read_image


def is_inside(crop: torch.Tensor, image: torch.Tensor) -> bool:
    """Whether the crop or its mirror image occurs in the image."""
    side = crop.shape[-1]
    windows = image.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
    return any(bool((windows == version).all(-1).all(-1).all(-1).any()) for version in (crop, crop.flip(-1)))


def test_crops_come_from_their_photo(photos) -> None:
    dataset = PhotoFolder(photos, crop=24, scale=4, degradation=BicubicDegradation(4), samples_per_image=2)
    assert len(dataset) == 12
    for index, path in enumerate(list_images(photos)):
        first, second = dataset[index], dataset[index + 6]
        assert first.index == index
        assert first.hr_image.shape == (3, 24, 24)
        assert first.lr_image.shape == (3, 6, 6)
        assert first.hr_latents is None
        assert is_inside(first.hr_image, read_image(path))
        assert is_inside(second.hr_image, read_image(path))
        assert not torch.equal(first.hr_image, second.hr_image)
        torch.testing.assert_close(first.lr_image, BicubicDegradation(4)(first.hr_image))


def test_half_of_the_crops_are_mirrored(photos) -> None:
    plain = PhotoFolder(photos, crop=64, flip=False, degradation=BicubicDegradation())
    flipped = PhotoFolder(photos, crop=64, degradation=BicubicDegradation(), cache=True)
    index = [path.name for path in plain.paths].index("3.png")  # 64x64: there is one crop
    image = read_image(plain.paths[index])
    mirrored = [torch.equal(flipped[(epoch, index)].hr_image, image.flip(-1)) for epoch in range(40)]
    assert all(torch.equal(plain[(epoch, index)].hr_image, image) for epoch in range(3))
    assert 10 <= sum(mirrored) <= 30


def test_every_other_crop_is_enlarged_from_a_smaller_piece(photos) -> None:
    plain = PhotoFolder(photos, crop=64, flip=False, degradation=BicubicDegradation(), cache=True)
    dataset = PhotoFolder(photos, crop=64, flip=False, degradation=BicubicDegradation(), cache=True, enlarge=(2, 2))
    index = [path.name for path in dataset.paths].index("3.png")  # 64x64: a crop that is not enlarged is the photo
    image = read_image(dataset.paths[index])
    crops = [dataset[(epoch, index)].hr_image for epoch in range(40)]
    enlarged = [crop for crop in crops if not torch.equal(crop, image)]
    assert 10 <= len(enlarged) <= 30
    for crop in enlarged:
        assert crop.shape == (3, 64, 64)
        assert 0 <= float(crop.min()) <= float(crop.max()) <= 1
        assert float(crop.diff(dim=-1).abs().mean()) < 0.7 * float(image.diff(dim=-1).abs().mean())
    # Without it, the crops are what they were before there was such an option.
    assert torch.equal(plain[index].hr_image, image)


def test_enlarged_crops_are_pieces_of_the_photo(photos) -> None:
    dataset = PhotoFolder(photos, crop=64, flip=False, degradation=BicubicDegradation(), enlarge=(4, 4))
    index = [path.name for path in dataset.paths].index("3.png")
    image = read_image(dataset.paths[index])
    pieces = image.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 16, 16)
    candidates = torch.nn.functional.interpolate(pieces, (64, 64), mode="bicubic").clamp(0, 1)
    found = 0
    for epoch in range(12):
        crop = dataset[(epoch, index)].hr_image
        if not torch.equal(crop, image):
            assert float((candidates - crop).abs().amax(dim=(1, 2, 3)).min()) < 1e-5
            found += 1
    assert found


@pytest.mark.filterwarnings("ignore:left out")
def test_crops_reach_every_corner(photos) -> None:
    dataset = PhotoFolder(photos, crop=80, flip=False, degradation=BicubicDegradation(), cache=True, on_error="skip")
    index = [path.name for path in dataset.paths].index("5.png")  # 81x83 pixels
    image = read_image(dataset.paths[index])
    corners = {(top, left): image[:, top : top + 80, left : left + 80] for top in range(2) for left in range(4)}
    seen = set()
    for epoch in range(100):
        crop = dataset[(epoch, index)].hr_image
        seen |= {corner for corner, window in corners.items() if torch.equal(crop, window)}
    assert seen == set(corners)


def test_whole_photos_are_cut_to_multiples_and_always_the_same(photos) -> None:
    dataset = PhotoFolder(photos, crop=None, scale=4, multiple_of=16)
    sizes = [tuple(sample.hr_image.shape[1:]) for sample in dataset]
    assert sizes == [(96, 80), (80, 112), (96, 96), (64, 64), (80, 80), (80, 64)]
    again = PhotoFolder(photos, crop=None, scale=4, multiple_of=16)
    assert torch.equal(dataset[1].lr_image, again[1].lr_image)
    assert torch.equal(dataset[1].hr_image, read_image(dataset.paths[1])[:, :80, :112])


def test_several_folders_and_seeds(photos) -> None:
    twice = PhotoFolder([photos, photos / "sub"], crop=32)
    assert len(twice) == 6
    other = PhotoFolder([photos, photos / "sub"], crop=32, seed=1)
    assert not torch.equal(twice[0].hr_image, other[0].hr_image)
    with pytest.raises(ValueError, match="empty list"):
        PhotoFolder([])


def test_small_photos(photos) -> None:
    with pytest.raises(ValueError, match=r"5 of 6 images are smaller than 96x96 \(crop=96\): .*0\.png.*crop="):
        PhotoFolder(photos, crop=96)
    with pytest.warns(UserWarning, match="left out: 5 of 6 images are smaller"):
        assert len(PhotoFolder(photos, crop=96, on_error="skip")) == 1
    with pytest.raises(ValueError, match="6 of 6 images are smaller"):
        PhotoFolder(photos, crop=128, on_error="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 30}, "crop must be a positive multiple of scale=4, got 30"),
        ({"crop": None, "multiple_of": 6}, "multiple_of must be a positive multiple of scale=4, got 6"),
        ({"scale": 0}, "scale must be a whole number"),
        ({"enlarge": (0.5, 2)}, "enlarge must be a range of factors of at least 1"),
        ({"enlarge": (1, float("inf"))}, "enlarge must be a range of factors of at least 1"),
        ({"enlarge": (1, 2), "crop": None}, "enlarge=.* is for crops"),
        ({"enlarge": (2, 1)}, "enlarge must be a range of factors of at least 1"),
        ({"samples_per_image": 0}, "samples_per_image must be at least 1, got 0"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_bad_arguments(photos, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhotoFolder(photos, **arguments)


def test_a_damaged_photo_among_good_ones(photos) -> None:
    bad = photos / "1.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png is empty"):
        PhotoFolder(photos, crop=32)
    with pytest.warns(UserWarning, match=r"left out: .*1\.png is empty"):
        assert len(PhotoFolder(photos, crop=32, on_error="skip")) == 5
    bad.write_bytes(good)
    bad.write_bytes(bad.read_bytes()[:3000])
    dataset = PhotoFolder(photos, crop=32)
    with pytest.raises(ValueError, match=r"can't read .*1\.png"):
        dataset[1]
    dataset[2]
    lenient = PhotoFolder(photos, crop=32, on_error="skip")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        samples = [lenient[1] for _ in range(3)]
    assert len(caught) == 1
    assert "1.png" in str(caught[0].message)
    assert is_inside(samples[0].hr_image, read_image(photos / "2.png"))
    assert torch.equal(samples[0].lr_image, samples[2].lr_image)


@pytest.fixture
def pair_folders(tmp_path, photo_like, save_photo):
    hr_path, lr_path = tmp_path / "hr", tmp_path / "lr"
    for index in range(3):
        image = photo_like(64 + 8 * index, 80, seed=index)
        save_photo(hr_path / f"{index}.png", image)
        # Each LR pixel is a corner of its HR block, so that alignment can be read off exactly.
        save_photo(lr_path / f"{index}.png", image[:, ::4, ::4])
    return hr_path, lr_path


def test_pairs_are_cropped_and_flipped_alike(pair_folders) -> None:
    plain = PairedFolders(*pair_folders, crop=32, flip=False, samples_per_image=5)
    assert len(plain) == 15
    for epoch in range(3):
        for index in range(len(plain)):
            sample = plain[(epoch, index)]
            assert torch.equal(sample.lr_image, sample.hr_image[:, ::4, ::4])
    flipped = PairedFolders(*pair_folders, crop=32, samples_per_image=5)
    aligned = [torch.equal(sample.lr_image, sample.hr_image.flip(-1)[:, ::4, ::4].flip(-1)) for sample in flipped]
    assert 0 < sum(aligned) < 15
    whole = PairedFolders(*pair_folders, crop=None, multiple_of=16)
    assert [tuple(sample.hr_image.shape[1:]) for sample in whole] == [(64, 80), (64, 80), (80, 80)]
    assert all(torch.equal(sample.lr_image, sample.hr_image[:, ::4, ::4]) for sample in whole)


def test_marks_in_names_are_seen_through(pair_folders) -> None:
    hr_path, lr_path = pair_folders
    for path in list_images(lr_path):
        path.rename(path.with_name(f"{path.stem}x4.png"))
    assert len(PairedFolders(hr_path, lr_path, crop=32)) == 3
    for path in list_images(hr_path):
        path.rename(path.with_name(f"{path.stem}_HR.png"))
    for path in list_images(lr_path):
        path.rename(path.with_name(path.name.replace("x4", "_LR4")))
    assert PairedFolders(hr_path, lr_path, crop=32).paths[2] == (hr_path / "2_HR.png", lr_path / "2_LR4.png")


def test_pairs_that_do_not_match(pair_folders, photo_like, save_photo) -> None:
    hr_path, lr_path = pair_folders
    (lr_path / "1.png").rename(lr_path / "9.png")
    with pytest.raises(ValueError, match=r"LR images: .*lr doesn't hold the 3 images .*; missing: 1.png; extra: 9.png"):
        PairedFolders(hr_path, lr_path)
    (lr_path / "9.png").unlink()
    (lr_path / "1.png").write_bytes((hr_path / "1.png").read_bytes())
    with pytest.raises(
        ValueError, match=r"exactly scale=4 times .* 1 of 3 aren't: .*1\.png is 80x72, .*80x72.*set scale="
    ):
        PairedFolders(hr_path, lr_path, crop=32)
    save_photo(hr_path / "1.bmp", photo_like(64, 64))
    with pytest.raises(ValueError, match=r"ambiguous: 1\.bmp, 1\.png"):
        PairedFolders(hr_path, lr_path)


def test_images_to_upscale(photos) -> None:
    dataset = LRFolder([photos / "sub", photos / "0.png"])
    assert [sample.path for sample in dataset] == [str(photos / "sub" / "4.png"), str(photos / "0.png")]
    assert dataset[1].lr_image.shape == (3, 96, 80)
    assert len(LRFolder(photos / "0.png")) == 1
    with pytest.raises(ValueError, match="doesn't exist"):
        LRFolder(photos / "7.png")
