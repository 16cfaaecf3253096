import errno
import io
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import PairStore, TeacherPairs

FINGERPRINT = {"model": "some/flow", "revision": "abc", "scaling_factor": 0.36, "image_size": [32, 32], "steps": 28}
SHAPE = (4, 8, 8)


def make(path: Path, **changes: object) -> PairStore:
    arguments = {"fingerprint": FINGERPRINT, "num_pairs": 10, "shard_size": 4, "latent_shape": SHAPE, "seed": 7}
    return PairStore.create_or_resume(path, **{**arguments, **changes})


def fill(store: PairStore, shards: int | None = None) -> None:
    """Stand in for a teacher: latents and images are a fixed function of the noise."""
    for indices in store.missing_shards()[:shards]:
        noise = torch.stack([store.noise(index) for index in indices])
        images = (noise[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3) * 0.2 + 0.5).clamp(0, 1)
        store.write_shard(indices.start // store.shard_size, noise * 0.5, images)


def content(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in sorted(path.iterdir())}


def test_shards_hold_what_was_written(tmp_path) -> None:
    store = make(tmp_path / "store")
    assert store.missing_shards() == [range(0, 4), range(4, 8), range(8, 10)]
    fill(store)
    assert store.missing_shards() == []
    assert sorted(content(store.path)) == ["manifest.json", *(f"pairs-0000{i}.safetensors" for i in range(3))]
    shard = load_file(store.shard_path(2))
    assert set(shard) == {"latents", "images"}
    assert shard["images"].shape == (2, 3, 32, 32)
    assert shard["images"].dtype == torch.uint8
    assert torch.equal(shard["latents"][1], store.noise(9) * 0.5)
    assert PairStore.open(store.path).fingerprint == FINGERPRINT


def test_noise_is_a_function_of_seed_and_index(tmp_path) -> None:
    store, other = make(tmp_path / "a"), make(tmp_path / "b", seed=8)
    assert torch.equal(store.noise(3), store.noise(3))
    assert not torch.equal(store.noise(3), store.noise(4))
    assert not torch.equal(store.noise(3), other.noise(3))
    many = torch.stack([store.noise(index) for index in range(10)])
    assert abs(float(many.mean())) < 0.08
    assert float(many.std()) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match="there is no pair 10"):
        store.noise(10)


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_resumed_store_equals_an_uninterrupted_one(tmp_path, finished: int) -> None:
    fill(make(tmp_path / "whole"))
    fill(make(tmp_path / "resumed"), shards=finished)
    resumed = make(tmp_path / "resumed")
    assert len(resumed.missing_shards()) == 3 - finished
    fill(resumed)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")


def test_a_kill_between_shard_and_manifest_and_leftovers_of_a_kill(tmp_path, monkeypatch) -> None:
    fill(make(tmp_path / "whole"))
    store = make(tmp_path / "killed")
    fill(store, shards=1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_manifest", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fill(store, shards=1)
    (tmp_path / "killed" / ".tmp-pairs-00002.safetensors").write_bytes(b"half a shard")
    resumed = make(tmp_path / "killed")
    assert resumed.missing_shards() == [range(8, 10)]
    fill(resumed)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_lost_or_cut_off_shard_is_made_again(tmp_path) -> None:
    store = make(tmp_path)
    fill(store)
    before = content(tmp_path)
    store.shard_path(0).unlink()
    store.shard_path(1).write_bytes(store.shard_path(1).read_bytes()[:-10])
    resumed = make(tmp_path)
    assert resumed.missing_shards() == [range(0, 4), range(4, 8)]
    fill(resumed)
    assert content(tmp_path) == before


@pytest.mark.parametrize("nums", [(3, 10), (4, 10), (6, 7, 10), (10, 2), (10, 2, 9), (2, 10, 6)])
def test_a_store_grows_and_is_used_shorter(tmp_path, nums: tuple[int, ...]) -> None:
    """As many shards are there as for the most pairs that were ever asked for, the same as if made at once."""
    made = 0
    for num in nums:
        store = make(tmp_path / "store", num_pairs=num)
        missing = [index for indices in store.missing_shards() for index in indices]
        assert missing == list(range(made, num))
        fill(store)
        made = max(made, num)
        assert (store.num_pairs, store.missing_shards()) == (num, [])
        assert len(PairStore.open(store.path).places()) == made
    fill(make(tmp_path / "once", num_pairs=max(nums)))
    fill(make(tmp_path / "once", num_pairs=nums[-1]))
    assert content(tmp_path / "store") == content(tmp_path / "once")


@pytest.mark.parametrize("written", [["note"], ["note", "shard"]])
def test_a_kill_while_a_shard_grows_costs_no_pair(tmp_path, monkeypatch, written: list[str]) -> None:
    fill(make(tmp_path, num_pairs=2))
    store = make(tmp_path, num_pairs=3)
    replace = os.replace

    def killed(*arguments: Path) -> None:
        if not written:
            raise KeyboardInterrupt
        replace(*arguments)
        written.pop()

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fill(store)
    resumed = make(tmp_path, num_pairs=3)
    assert set(resumed.places()) >= {0, 1}
    fill(resumed)
    assert len(TeacherPairs(tmp_path)) == 3


def test_a_damaged_shard_does_not_grow(tmp_path) -> None:
    store = make(tmp_path, num_pairs=2)
    fill(store)
    shard = bytearray(store.shard_path(0).read_bytes())
    shard[-1] ^= 1
    store.shard_path(0).write_bytes(shard)
    with pytest.raises(ValueError, match=r"pairs-00000\.safetensors"):
        fill(make(tmp_path))
    store.shard_path(0).unlink()
    fill(make(tmp_path))
    assert make(tmp_path).missing_shards() == []


@pytest.mark.parametrize(
    ("photos", "missing"),
    [
        ("abcdef", {}),
        ("fedcba", {}),
        ("abdef", {}),
        ("ab", {}),
        ("abXdef", {6: "X"}),
        ("YabcdefZ", {6: "Y", 7: "Z"}),
        ("VWXYZ", {6: "V", 7: "W", 8: "X", 9: "Y", 10: "Z"}),
    ],
)
def test_a_pair_is_known_by_its_photo(tmp_path, photos: str, missing: dict[int, str]) -> None:
    def fill_photos(photos: str) -> PairStore:
        store = make(tmp_path, num_pairs=20, photos=photos)
        keys = store.missing_keys()
        for indices in store.missing_shards():
            values = torch.tensor([float(ord(keys[index])) for index in indices])[:, None, None, None]
            latents = values.expand(-1, *SHAPE)
            store.write_shard(indices.start // 4, latents, torch.zeros(len(indices), 3, 8, 8), latents)
        return store

    before = fill_photos("abcdef")
    first = before.shard_path(0).read_bytes()
    assert make(tmp_path, num_pairs=20, photos=photos).missing_keys() == missing
    store = fill_photos(photos)
    assert store.shard_path(0).read_bytes() == first
    pairs = TeacherPairs(tmp_path)
    assert [chr(int(pairs[index].hr_latents[0, 0, 0])) for index in range(len(pairs))] == list(photos)
    assert store.num_asked == 20 and not fill_photos("abcdef").missing_keys()


AUTOENCODER = {"kind": "AutoencoderKL", "scale": 0.36, "weights": "bytes:1"}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"steps": 4, "guidance": 3.5}, ["guidance is None there, 3.5 here", "steps is 28 there, 4 here"]),
        ({"seed": 0}, ["seed is 7 there, 0 here"]),
        ({"photos": "abcdefghij"}, ["noise is 'seed' there, 'stored' here"]),
        ({"autoencoder": {**AUTOENCODER, "weights": "bytes:2"}}, ["autoencoder weights is 'bytes:1' there"]),
        ({"model": "other/name", "revision": "def", "prompt": "x"}, []),
        ({"autoencoder": {"kind": "AutoencoderKL", "scale": 0.36}}, []),
        ({"image_size": (32, 32), "shard_size": 5}, []),
    ],
)
def test_stores_are_not_mixed(tmp_path, changes: dict, differs: list[str]) -> None:
    options = {"fingerprint": {**FINGERPRINT, "autoencoder": AUTOENCODER}}
    fill(make(tmp_path, **options), shards=1)
    own = {key: value for key, value in changes.items() if key in ("seed", "photos", "shard_size")}
    other = {key: value for key, value in changes.items() if key not in own}
    options["fingerprint"] |= other
    if not differs:
        assert make(tmp_path, **options, **own).missing_shards() == [range(4, 8), range(8, 10)]
        assert PairStore.open(tmp_path).fingerprint["model"] == FINGERPRINT["model"]
        return
    before = content(tmp_path)
    with pytest.raises(ValueError, match=".*; ".join(differs)):
        make(tmp_path, **options, **own)
    assert content(tmp_path) == before


def test_other_folders_are_no_stores(tmp_path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"is not empty and has no manifest\.json"):
        make(tmp_path)


def test_a_full_disk_leaves_finished_shards(tmp_path, monkeypatch) -> None:
    store = make(tmp_path)
    fill(store, shards=1)
    before = content(tmp_path)
    real_open = Path.open

    class FullDisk(io.BufferedWriter):
        def write(self, data) -> int:
            super().write(data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(self, mode="r", *args, **kwargs):
        file = real_open(self, mode, *args, **kwargs)
        return FullDisk(file.detach()) if mode == "wb" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ValueError, match=r"no space left for .*pairs-00001\.safetensors.*kept.*free some space"):
            fill(store)
    assert content(tmp_path) == before
    fill(make(tmp_path))
    assert make(tmp_path).missing_shards() == []


def test_photos_have_their_noise_stored(tmp_path) -> None:
    store = make(tmp_path, num_pairs=2, photos="ab")
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    store.write_shard(0, noise / 2, images, noise)
    shard = load_file(store.shard_path(0))
    assert torch.equal(shard["noise"], noise) and torch.equal(shard["latents"], noise / 2)
    assert torch.equal(shard["images"], (images * 255).round().byte())
    with pytest.raises(ValueError, match="kept in its shards"):
        store.noise(0)


def test_bad_tensors_are_refused(tmp_path) -> None:
    store = make(tmp_path)
    latents, images = torch.zeros(4, *SHAPE), torch.zeros(4, 3, 32, 32)
    cases = [
        ((0, latents[:3], images), r"latents must be \(4, 4, 8, 8\), got \(3, 4, 8, 8\)"),
        ((0, latents, images[:, :, :30]), "images must be"),
        ((0, latents, images[:3]), "images must be"),
        ((0, latents, images, latents), "noise must be given for a store of photos"),
        ((0, latents / 0, images), "latents have NaN"),
        ((0, latents, images + float("inf")), "images have NaN"),
        ((3, latents, images), "no pairs to write in shard 3"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            store.write_shard(*arguments)
    assert list(content(tmp_path)) == ["manifest.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pairs": 0}, "must be at least 1, got 0 and 4"),
        ({"latent_shape": (4, 8)}, "three positive sizes"),
        ({"photos": "abca"}, "1 to 10 different digests, got 4"),
        ({"photos": ""}, "1 to 10 different digests, got 0"),
    ],
)
def test_bad_arguments(tmp_path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "store", **changes)
    assert not (tmp_path / "store").exists()


def test_bad_manifests(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no store of teacher pairs: it has no manifest\.json"):
        PairStore.open(tmp_path)
    make(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    path.write_text(text[:50])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        PairStore.open(tmp_path)
    for wrong, named in (({"version": 99}, "version 99"), ({"image_dtype": "float16"}, "float16")):
        path.write_text(json.dumps({**json.loads(text), **wrong}))
        with pytest.raises(ValueError, match=named):
            PairStore.open(tmp_path)
    path.write_text(text)
    assert not re.search(r"20\d\d-|/", text.replace("some/flow", "")), "no dates or paths in a manifest"


def test_what_others_wrote_aside_is_taken_over(tmp_path) -> None:
    fill(make(tmp_path / "alone"))
    folder = tmp_path / "shared"
    first, other = make(folder), PairStore.open(folder)
    manifest = (folder / "manifest.json").read_bytes()
    for number in (1, 2):
        shard = load_file(PairStore.open(tmp_path / "alone").shard_path(number))
        other.write_shard(number, shard["latents"], shard["images"].float() / 255, aside=True)
    assert (folder / "manifest.json").read_bytes() == manifest
    fill(first, 1)
    assert PairStore.open(folder).missing_shards() == [range(4, 8), range(8, 10)]
    # An interruption here loses nothing: the same call takes it over.
    assert make(folder).missing_shards() == []
    assert content(folder) == content(tmp_path / "alone")


def test_other_disk_errors_pass_through(tmp_path, monkeypatch) -> None:
    store = make(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        fill(store)
