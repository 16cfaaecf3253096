import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from fluxsr.data import BicubicDegradation, PairStore, TeacherPairs
from fluxsr.data.samples import collate

SHAPE = (4, 6, 8)


@pytest.fixture
def store(tmp_path) -> PairStore:
    """Seven pairs in shards of three; latents show their own position, pixels that of their latent."""
    return fill(tmp_path / "pairs")


def fill(path: Path, shards: int = 3, **options: object) -> PairStore:
    arguments = {"fingerprint": {"model": "m", "scaling_factor": 0.36}, "num_pairs": 7, "shard_size": 3, "seed": 3}
    store = PairStore.create_or_resume(path, latent_shape=SHAPE, **{**arguments, **options})
    for indices in store.missing_shards()[:shards]:
        position = torch.arange(48.0).reshape(1, 1, 6, 8)
        latents = position + 100 * torch.tensor(list(indices))[:, None, None, None]
        latents = latents.expand(-1, 4, -1, -1)
        images = (position / 255).repeat_interleave(8, 2).repeat_interleave(8, 3).expand(len(indices), 3, -1, -1)
        noise = torch.randn(len(indices), *SHAPE) if store.noise_is_stored else None
        store.write_shard(indices.start // 3, latents, images, noise)
    return store


def test_samples(store) -> None:
    dataset = TeacherPairs(store.path, degradation=BicubicDegradation())
    assert len(dataset) == 7
    assert dataset.latent_factor == 8
    for index in (0, 4, 6):
        sample = dataset[index]
        assert sample.index == index
        assert sample.hr_image.shape == (3, 48, 64)
        assert sample.lr_image.shape == (3, 12, 16)
        assert torch.equal(sample.noise, store.noise(index))
        assert float(sample.hr_latents[0, 0, 0]) == 100 * index
        assert sample.hr_latents.dtype == sample.noise.dtype == torch.float32
        torch.testing.assert_close(sample.lr_image, BicubicDegradation()(sample.hr_image))


def test_crops_are_aligned(store) -> None:
    dataset = TeacherPairs(store.path, crop=24)
    corners = set()
    for epoch in range(40):
        sample = dataset[(epoch, 5)]
        assert sample.hr_image.shape == (3, 24, 24)
        assert sample.lr_image.shape == (3, 6, 6)
        position = sample.hr_latents[0] - 500
        torch.testing.assert_close(sample.hr_image[1, ::8, ::8] * 255, position)
        row, column = divmod(int(position[0, 0]), 8)
        assert torch.equal(sample.noise, store.noise(5)[:, row : row + 3, column : column + 3])
        corners.add((row, column))
    assert len(corners) > 12
    again = TeacherPairs(store.path, crop=24)
    assert torch.equal(dataset[(3, 5)].lr_image, again[(3, 5)].lr_image)
    assert not torch.equal(dataset[(3, 5)].lr_image, dataset[(4, 5)].lr_image)


def test_workers_and_copies(store) -> None:
    dataset = TeacherPairs(store.path, crop=16)
    reference = collate([dataset[index] for index in range(4)])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[2].hr_image, dataset[2].hr_image)
    batch = next(iter(DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=collate)))
    for name in ("hr_image", "lr_image", "index", "hr_latents", "noise"):
        assert torch.equal(getattr(batch, name), getattr(reference, name)), name


def test_stored_noise(tmp_path) -> None:
    store = fill(tmp_path, photos="abcdefg")
    sample = TeacherPairs(tmp_path)[3]
    shard = load_file(store.shard_path(1))
    assert torch.equal(sample.noise, shard["noise"][0])
    assert torch.equal(sample.hr_latents, shard["latents"][0])


def test_an_unfinished_store(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no store of teacher pairs"):
        TeacherPairs(tmp_path / "nowhere")
    fill(tmp_path, shards=2)
    with pytest.raises(ValueError, match=r"unfinished: 1 of 7 pairs are missing.*once more to resume"):
        TeacherPairs(tmp_path)


def test_damaged_shards_are_named(store) -> None:
    (store.path / ".tmp-pairs-00001.safetensors").write_bytes(b"half")  # what a kill leaves is no shard
    path = store.shard_path(1)
    good = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=r"1 shards .* are bad: pairs-00001\.safetensors is missing.*once more"):
        TeacherPairs(store.path)
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"pairs-00001\.safetensors has .* of .* bytes"):
        TeacherPairs(store.path, verify=False)
    flipped = bytearray(good)
    flipped[-50] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=r"pairs-00001\.safetensors doesn't have the recorded checksum"):
        TeacherPairs(store.path)
    assert len(TeacherPairs(store.path, verify=False)) == 7
    path.write_bytes(bytes(len(good)))
    lazy = TeacherPairs(store.path, verify=False)
    with pytest.raises(ValueError, match=r"can't read the pairs in .*pairs-00001"):
        lazy[3]


def test_nan_latents(store) -> None:
    path = store.shard_path(0)
    shard = load_file(path)
    shard["latents"][2, 0, 0, 0] = float("nan")
    save_file(shard, path)
    dataset = TeacherPairs(store.path, verify=False)
    dataset[1]
    with pytest.raises(ValueError, match=r"latents of pair 2 in .*pairs-00000\.safetensors have NaN"):
        dataset[2]


def test_noise_of_another_torch(store) -> None:
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "noise_digest": "0" * 64}))
    with pytest.raises(ValueError, match="draws other noise from seed 3"):
        TeacherPairs(store.path)


@pytest.mark.parametrize("crop", [12, 56, 0])
def test_crops_that_do_not_fit(store, crop: int) -> None:
    with pytest.raises(ValueError, match=rf"crop={crop} doesn't fit .* are 64x48, and a crop must be a multiple of 8"):
        TeacherPairs(store.path, crop=crop)


def test_whole_images_must_be_multiples_of_the_scale(store) -> None:
    with pytest.raises(ValueError, match="64x48 are no multiple of scale=5"):
        TeacherPairs(store.path, scale=5)
