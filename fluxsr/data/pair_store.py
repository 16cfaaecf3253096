"""Writes a folder of teacher pairs shard by shard, goes on with it at any time, and never mixes two kinds of pairs.

Layout::

    manifest.json               what all pairs depend on (the fingerprint), how they are stored, which are in use, and of
                                each shard its pairs and its checksum
    pairs-00000.safetensors     pairs 0 .. shard_size - 1, and so on, fewer where fewer were asked for:
        latents   (n, C, h, w)  float32, scaled and shifted
        images    (n, 3, H, W)  uint8, rounded to 8 bit
        noise     (n, C, h, w)  float32; only of photos, where it can't be drawn again from its seed

A pair is known by its index, or by the digest of its photo. The manifest says the number of the pairs in use, or the photos'
digests; a shard may have others too, which are used again when they are asked for.

The name of an unfinished shard starts with `.tmp-`, and no reader opens it. Of several processes one writes the manifest.
The others leave what it says of their shards in files that start with `.done-`, until that one copies it to the manifest.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fluxsr.data.samples import sample_generator

PairKey = int | str
"""What a pair is known by: its index, or the digest of its photo's bytes."""

MANIFEST = "manifest.json"
_ASIDE = ".done-"
_FORMAT = "fluxsr teacher pairs"
_VERSION = 2
# Names of what made the pairs, for people: a digest says what it was, and folders are renamed.
_NAMES = {"model", "revision", "prompt"}
_KIND = {"latent_dtype": "float32", "image_dtype": "uint8"}


class PairStore:
    """Writer of teacher pairs; it takes tensors and never runs a model. `TeacherPairs` reads what it wrote.

    The content and the name of a shard follow from its pairs alone, and no time of writing is recorded. So a store that was
    interrupted, or that grew, equals one that was made at once file for file (given equal tensors). Use one writer at a time,
    or several that write different shards. Of several, one writes the manifest and calls `take_over`; the others call
    `write_shard(..., aside=True)`.

    Usage::

        store = PairStore.create_or_resume(
            folder, fingerprint, num_pairs=2400, shard_size=16, latent_shape=(16, 128, 128)
        )
        for indices in store.missing_shards():
            noise = torch.stack([store.noise(index) for index in indices])
            latents, images = teacher(noise)
            store.write_shard(indices.start // store.shard_size, latents, images)

    Args:
        path: The store's folder.
        manifest: The content of its `manifest.json`; use `create_or_resume` or `open`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self._manifest = manifest

    @classmethod
    def create_or_resume(
        cls,
        path: str | Path,
        fingerprint: Mapping[str, Any],
        num_pairs: int,
        shard_size: int,
        *,
        latent_shape: tuple[int, int, int],
        seed: int = 0,
        photos: Sequence[str] | None = None,
    ) -> "PairStore":
        """Make a new store, or open one of the same kind of pairs: it then has as many in use as are asked for here.

        Pairs that are there stay, also those that are no longer in use, and a store keeps its size of shards.

        Args:
            path: Folder, made if missing; it must be empty or a store.
            fingerprint: Everything that all pairs depend on, such as weights, autoencoder, shift, prompt, guidance, steps,
                image size: JSON values. The values of `model`, `revision` and `prompt` are names for people, and not
                compared; of mappings only the keys that both have are.
            num_pairs: Number of pairs in use; with photos, at most.
            shard_size: Pairs per file.
            latent_shape: (C, h, w) of one pair's latents and noise.
            seed: Seed of the noise.
            photos: Digests of the photos, no two the same, where pairs are known by them, and their noise is stored. A store
                of version 0.2 doesn't say which photos it has: its pairs are taken to be those of the first ones.

        Raises:
            ValueError: For arguments that make no sense, a folder with other things in it, or a store of other pairs: the
                keys that differ are named with both values.
        """
        path = Path(path)
        if num_pairs < 1 or shard_size < 1:
            raise ValueError(f"num_pairs and shard_size must be at least 1, got {num_pairs} and {shard_size}")
        if photos is not None and not 1 <= len(set(photos)) == len(photos) <= num_pairs:
            raise ValueError(f"photos must be 1 to {num_pairs} different digests, got {len(photos)}")
        if len(latent_shape) != 3 or min(latent_shape) < 1:
            raise ValueError(f"latent_shape must be three positive sizes (C, h, w), got {latent_shape}")
        wanted = {
            "fingerprint": dict(fingerprint),
            "latent_shape": list(latent_shape),
            "seed": seed,
            "noise": "seed" if photos is None else "stored",
            **_KIND,
        }
        # Through JSON and back, so that a tuple compares equal to the list it is stored as.
        wanted = json.loads(json.dumps(wanted))
        if (path / MANIFEST).exists():
            store = cls.open(path)
            store._refuse_other(wanted)
            store.check_noise()
            store.take_over()
        else:
            if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
                raise ValueError(f"{path} is not empty and has no {MANIFEST}: choose a new folder for the pairs")
            path.mkdir(parents=True, exist_ok=True)
            store = cls(path, {"format": _FORMAT, "shard_size": shard_size, "shards": {}})
            if photos is None:
                store._manifest["noise_digest"] = _digest(draw_noise(seed, 0, latent_shape))
        store._use(wanted, num_pairs, photos)
        return store

    @classmethod
    def open(cls, path: str | Path) -> "PairStore":
        """Open an existing store, finished or not; a ValueError if the folder holds none, or one that can't be read."""
        path = Path(path)
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise ValueError(f"{path} is no store of teacher pairs: it has no {MANIFEST}. `fluxsr pairs` makes one")
        try:
            manifest = json.loads(manifest_path.read_text("utf-8"))
            format_, version = manifest["format"], manifest["version"]
            if version == 1:
                _complete_version_1(manifest)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest_path} is damaged ({error}): make the pairs again in a new folder") from error
        other = {key: manifest.get(key) for key, kind in _KIND.items() if manifest.get(key, kind) != kind}
        if other:
            raise ValueError(f"{path} holds {other}, and only {_KIND} is read: make the pairs again in a new folder")
        if format_ != _FORMAT or version not in (1, _VERSION):
            raise ValueError(
                f"{manifest_path} is {format_!r}, version {version}; this release reads {_FORMAT!r}, version {_VERSION}"
            )
        return cls(path, manifest)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that all pairs depend on, and the names that the first call gave."""
        return dict(self._manifest["fingerprint"])

    @property
    def keys(self) -> Sequence[PairKey]:
        """What each pair in use is known by: its index, or the digest of its photo, in the photos' order."""
        keys: Sequence[PairKey] = self._manifest.get("photos", range(self.num_asked))
        return keys

    @property
    def num_asked(self) -> int:
        """Number of pairs that were asked for; of photos there may be fewer."""
        return int(self._manifest["num_pairs"])

    @property
    def num_pairs(self) -> int:
        """Number of pairs in use, once all are made."""
        return len(self.keys)

    @property
    def shard_size(self) -> int:
        """Pairs per shard; some may have fewer."""
        return int(self._manifest["shard_size"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one pair's latents and noise."""
        channels, height, width = self._manifest["latent_shape"]
        return channels, height, width

    @property
    def noise_is_stored(self) -> bool:
        """Whether the shards hold the noise; if not, `noise` draws it."""
        return bool(self._manifest["noise"] == "stored")

    def shard_path(self, shard_index: int) -> Path:
        """Return where a shard is or will be."""
        return self.path / f"pairs-{shard_index:05d}.safetensors"

    def shard_record(self, shard_index: int) -> dict[str, Any] | None:
        """Return `{"bytes": ..., "sha256": ..., "pairs": [...]}` of a finished shard, None of one that isn't."""
        record: dict[str, Any] | None = self._manifest["shards"].get(self.shard_path(shard_index).name)
        return record

    def places(self) -> dict[PairKey, tuple[int, int]]:
        """Return shard and row of each pair that the manifest lists, in use or not."""
        shards = self._manifest["shards"].items()
        return {key: (_number(name), row) for name, record in shards for row, key in enumerate(record["pairs"])}

    def missing_keys(self) -> dict[int, PairKey]:
        """Return what the pairs to be made are known by, at their indices: the free ones in the shards, in order."""
        there = {number: self._rows(number) for number in map(_number, self._manifest["shards"])}
        known = {key for rows in there.values() for key in rows}
        lacking = [key for key in self.keys if key not in known]
        free = (
            number * self.shard_size + row
            for number in count()
            for row in range(len(there.get(number, [])), self.shard_size)
        )
        return dict(zip(islice(free, len(lacking)), lacking, strict=True))

    def missing_shards(self) -> list[range]:
        """Return, for each shard that lacks pairs in use, the indices of those to be made.

        A shard whose file is gone or of another size lacks them all. Where pairs are known by their photos, `missing_keys`
        says which photos have these indices.
        """
        by_shard = groupby(self.missing_keys(), lambda index: index // self.shard_size)
        return [range(indices[0], indices[-1] + 1) for indices in (list(group) for _, group in by_shard)]

    def noise(self, index: int) -> Tensor:
        """Return the noise `(C, h, w)` float32 of a pair, of a store that draws it from its seed."""
        if not 0 <= index < self.num_pairs:
            raise ValueError(f"there is no pair {index}: the store has {self.num_pairs}")
        if self.noise_is_stored:
            raise ValueError(f"the noise of {self.path} is kept in its shards, not drawn from a seed")
        return draw_noise(int(self._manifest["seed"]), index, self.latent_shape)

    def check_noise(self) -> None:
        """Raise a ValueError unless this machine draws the noise that the pairs were made from."""
        if not self.noise_is_stored and _digest(self.noise(0)) != self._manifest["noise_digest"]:
            raise ValueError(
                f"torch {torch.__version__} draws other noise from seed {self._manifest['seed']} than the pairs in "
                f"{self.path} were made from: use the torch version that made them, or make them again"
            )

    def write_shard(
        self, shard_index: int, latents: Tensor, images: Tensor, noise: Tensor | None = None, *, aside: bool = False
    ) -> None:
        """Write the pairs that a shard lacks behind those that it has, all or nothing.

        Args:
            shard_index: Index of the shard.
            latents: `(n, C, h, w)`, scaled and shifted, of the pairs that `missing_shards` names.
            images: `(n, 3, H, W)` in [0, 1], a whole multiple of the latents' size; values outside are clamped.
            noise: `(n, C, h, w)`, for a store of photos only.
            aside: Whether another process writes the manifest; its `take_over` finishes the shard.

        Raises:
            ValueError: For a shard that lacks nothing, unfit tensors, a damaged shard, or a full disk.
        """
        start = shard_index * self.shard_size
        planned = self.missing_keys()
        new = [planned[index] for index in range(start, start + self.shard_size) if index in planned]
        if not new:
            raise ValueError(f"there are no pairs to write in shard {shard_index}")
        self._check_tensors(f"shard {shard_index}", len(new), latents, images, noise)
        eight_bit = (images.detach().float().clamp(0, 1) * 255).round()
        tensors = {"latents": latents.detach().to("cpu", torch.float32), "images": eight_bit.to("cpu", torch.uint8)}
        if noise is not None:
            tensors["noise"] = noise.detach().to("cpu", torch.float32)
        path, old = self.shard_path(shard_index), self._rows(shard_index)
        if old:
            before, known = path.read_bytes(), self._manifest["shards"][path.name]["sha256"]
            if hashlib.sha256(before).hexdigest() != known:
                raise ValueError(f"{path} doesn't have the recorded checksum: delete it, and its pairs are made again")
            kept = load(before)
            tensors = {name: torch.cat([kept[name], tensor]) for name, tensor in tensors.items()}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pairs": [*old, *new]}
        # Before the shard, so that a kill between it and the manifest does not cost the pairs that it had.
        note = path.with_name(f"{_ASIDE}{path.name}")
        _write_atomically(note, json.dumps(record).encode())
        _write_atomically(path, content)
        if not aside:
            self._manifest["shards"][path.name] = record
            self._write_manifest()
            note.unlink()

    def take_over(self) -> None:
        """Enter into the manifest what other processes wrote aside, in this run or before an interruption."""
        notes = sorted(self.path.glob(f"{_ASIDE}*"))
        for note in notes:
            name = note.name.removeprefix(_ASIDE)
            record = {"pairs": _in_order(self._manifest, name), **json.loads(note.read_text("utf-8"))}
            if _has_size(self.path / name, record):
                self._manifest["shards"][name] = record
        if notes:
            self._write_manifest()
        for note in notes:
            note.unlink()

    def _use(self, wanted: dict[str, Any], num_pairs: int, photos: Sequence[str] | None) -> None:
        """Set which pairs are in use, and forget the shards that are gone."""
        found = self._manifest
        before = json.dumps(found, sort_keys=True)
        if photos is not None and "photos" not in found:
            for record in found["shards"].values():
                record["pairs"] = [photos[key] if key < len(photos) else key for key in record["pairs"]]
        names = {key: value for key, value in found.get("fingerprint", {}).items() if key in _NAMES}
        wanted["fingerprint"] |= names
        found |= {"version": _VERSION, **wanted, "num_pairs": num_pairs}
        found |= {} if photos is None else {"photos": list(photos)}
        found["shards"] = {name: one for name, one in found["shards"].items() if _has_size(self.path / name, one)}
        if json.dumps(found, sort_keys=True) != before:
            self._write_manifest()

    def _rows(self, shard_index: int) -> list[PairKey]:
        """Return what the pairs of a shard are known by; none where it isn't there."""
        name = self.shard_path(shard_index).name
        record = self._manifest["shards"].get(name)
        return record["pairs"] if record and _has_size(self.path / name, record) else []

    def _check_tensors(self, where: str, count: int, latents: Tensor, images: Tensor, noise: Tensor | None) -> None:
        if (noise is not None) != self.noise_is_stored:
            raise ValueError(f"{where}: noise must be given for a store of photos, and for no other")
        rows, columns = self.latent_shape[1:]
        factor = max(1, images.shape[-1] // columns)
        image_shape = (count, 3, factor * rows, factor * columns)
        expected = {"latents": (count, *self.latent_shape), "images": image_shape, "noise": (count, *self.latent_shape)}
        for name, tensor in (("latents", latents), ("images", images), ("noise", noise)):
            if tensor is not None and tuple(tensor.shape) != expected[name]:
                raise ValueError(f"{where}: {name} must be {expected[name]}, got {tuple(tensor.shape)}")
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise ValueError(f"{where}: {name} have NaN or infinite values; nothing was written")

    def _refuse_other(self, wanted: dict[str, Any]) -> None:
        found = {key: self._manifest.get(key) for key in wanted if key != "fingerprint"}
        differences = _differences(
            {**found, **self.fingerprint}, {**wanted, **wanted["fingerprint"], "fingerprint": None}
        )
        if differences:
            raise ValueError(
                f"{self.path} holds pairs that were made otherwise: {'; '.join(differences)}. "
                "Pairs of two kinds aren't mixed: choose a new folder, or give the old settings"
            )

    def _write_manifest(self) -> None:
        content = json.dumps(self._manifest, indent=2, sort_keys=True) + "\n"
        _write_atomically(self.path / MANIFEST, content.encode())


def draw_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise of `shape`, float32, drawn on the CPU for pair `index` of `seed`."""
    return torch.randn(shape, generator=sample_generator(seed, index))


def _number(name: str) -> int:
    return int(name.removeprefix("pairs-").removesuffix(".safetensors"))


def _in_order(manifest: dict[str, Any], name: str) -> list[int]:
    """Return the indices of a shard's pairs as version 0.2 had them, which didn't list them."""
    start = _number(name) * manifest["shard_size"]
    return list(range(start, min(start + manifest["shard_size"], manifest["num_pairs"])))


def _complete_version_1(manifest: dict[str, Any]) -> None:
    for name, record in manifest["shards"].items():
        record["pairs"] = _in_order(manifest, name)
    if "source" in manifest["fingerprint"]:  # behind the kind stood a digest of the photos' names
        manifest["fingerprint"]["source"] = manifest["fingerprint"]["source"].partition(":")[0]


def _has_size(path: Path, record: dict[str, Any]) -> bool:
    return path.is_file() and bool(path.stat().st_size == record["bytes"])


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say where two descriptions differ; of descriptions in them only the keys that both have count."""
    found = []
    for key in sorted({*there, *here} - _NAMES):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            both = old.keys() & new.keys()
            inner = _differences({one: old[one] for one in both}, {one: new[one] for one in both})
            found += [f"{key} {text}" for text in inner]
        elif old != new:
            found.append(f"{key} is {old!r} there, {new!r} here")
    return found


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"no space left for {path} ({len(content):,} bytes). The finished shards are kept: "
            "free some space and run the same command again to resume"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
