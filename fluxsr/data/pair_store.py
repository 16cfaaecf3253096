"""Writes a folder of teacher pairs shard by shard, resumes it after any interruption, and never mixes two stores.

Layout::

    manifest.json               what made the pairs (the fingerprint), how they are stored, checksums
    pairs-00000.safetensors     pairs 0 .. shard_size - 1, and so on:
        latents   (n, C, h, w)  float32, bfloat16 or float16, scaled and shifted
        images    (n, 3, H, W)  uint8 (rounded to 8 bit) or float16
        noise     (n, C, h, w)  float32; only where it can't be drawn again from its seed

The name of an unfinished shard starts with `.tmp-`, and no reader opens it. Of several processes one writes the manifest.
The others leave the checksum of each shard in a file that starts with `.done-`, until that one copies it to the manifest.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from fluxsr.data.samples import sample_generator

NoiseKind = Literal["seed", "stored"]

MANIFEST = "manifest.json"
_ASIDE = ".done-"
_FORMAT = "fluxsr teacher pairs"
_VERSION = 1
_LATENT_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGE_DTYPES = {"uint8": torch.uint8, "float16": torch.float16}


class PairStore:
    """Writer of teacher pairs; it takes tensors and never runs a model. `TeacherPairs` reads what it wrote.

    The content and the name of a shard follow from the indices alone, and no time of writing is recorded. So a resumed
    store equals an uninterrupted one file for file (given equal tensors). Use one writer at a time, or several that
    write different shards. Of several, one writes the manifest and calls `take_over`; the others call
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
        noise: NoiseKind = "seed",
        latent_dtype: str = "float32",
        image_dtype: str = "uint8",
    ) -> "PairStore":
        """Make a new store, or open the one that the same call has begun.

        Args:
            path: Folder, made if missing; it must be empty or a store.
            fingerprint: Everything that the tensors depend on, such as model, revision, autoencoder, scaling and shift,
                prompt hash, guidance, steps, image size: JSON values.
            num_pairs: Number of pairs.
            shard_size: Pairs per file.
            latent_shape: (C, h, w) of one pair's latents and noise.
            seed: Seed of the noise.
            noise: "seed": `noise(index)` is the noise, nothing is stored; "stored": `write_shard` is given it.
            latent_dtype: "float32", "bfloat16" or "float16".
            image_dtype: "uint8" or "float16".

        Raises:
            ValueError: For arguments that make no sense, a folder with other things in it, or a store of another
                fingerprint or layout: the keys that differ are named with both values.
        """
        path = Path(path)
        if num_pairs < 1 or shard_size < 1:
            raise ValueError(f"num_pairs and shard_size must be at least 1, got {num_pairs} and {shard_size}")
        if len(latent_shape) != 3 or min(latent_shape) < 1:
            raise ValueError(f"latent_shape must be three positive sizes (C, h, w), got {latent_shape}")
        _check_choice("noise", noise, ("seed", "stored"))
        _check_choice("latent_dtype", latent_dtype, _LATENT_DTYPES)
        _check_choice("image_dtype", image_dtype, _IMAGE_DTYPES)
        layout = {
            "num_pairs": num_pairs,
            "shard_size": shard_size,
            "latent_shape": list(latent_shape),
            "seed": seed,
            "noise": noise,
            "latent_dtype": latent_dtype,
            "image_dtype": image_dtype,
        }
        # Through JSON and back, so that a tuple compares equal to the list it is stored as.
        wanted = json.loads(json.dumps({"fingerprint": dict(fingerprint), **layout}))
        if (path / MANIFEST).exists():
            store = cls.open(path)
            store._refuse_other(wanted)
            store.take_over()
            return store
        if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
            raise ValueError(f"{path} is not empty and has no {MANIFEST}: choose a new folder for the pairs")
        path.mkdir(parents=True, exist_ok=True)
        manifest = {"format": _FORMAT, "version": _VERSION, **wanted, "shards": {}}
        if noise == "seed":
            manifest["noise_digest"] = _digest(draw_noise(seed, 0, latent_shape))
        store = cls(path, manifest)
        store._write_manifest()
        return store

    @classmethod
    def open(cls, path: str | Path) -> "PairStore":
        """Open an existing store, finished or not.

        Raises:
            ValueError: If the folder holds no manifest, one that can't be read, or one of another format version.
        """
        path = Path(path)
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise ValueError(f"{path} is no store of teacher pairs: it has no {MANIFEST}. `fluxsr pairs` makes one")
        try:
            manifest = json.loads(manifest_path.read_text("utf-8"))
            known = manifest["format"] == _FORMAT and manifest["version"] == _VERSION
            version = f"{manifest['format']!r}, version {manifest['version']}"
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest_path} is damaged ({error}): make the pairs again in a new folder") from error
        if not known:
            raise ValueError(f"{manifest_path} is {version}; this release reads {_FORMAT!r}, version {_VERSION}")
        return cls(path, manifest)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that the tensors depend on, as given at the start."""
        return dict(self._manifest["fingerprint"])

    @property
    def num_pairs(self) -> int:
        """Number of pairs in the finished store."""
        return int(self._manifest["num_pairs"])

    @property
    def shard_size(self) -> int:
        """Pairs per shard; the last may have fewer."""
        return int(self._manifest["shard_size"])

    @property
    def num_shards(self) -> int:
        """Number of shards in the finished store."""
        return -(-self.num_pairs // self.shard_size)

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

    def shard_indices(self, shard_index: int) -> range:
        """Return the indices of a shard's pairs.

        Raises:
            ValueError: If there is no such shard.
        """
        if not 0 <= shard_index < self.num_shards:
            raise ValueError(f"there is no shard {shard_index}: the store has {self.num_shards}")
        start = shard_index * self.shard_size
        return range(start, min(start + self.shard_size, self.num_pairs))

    def shard_record(self, shard_index: int) -> dict[str, Any] | None:
        """Return `{"bytes": ..., "sha256": ...}` of a finished shard, None of one that isn't."""
        record: dict[str, Any] | None = self._manifest["shards"].get(self.shard_path(shard_index).name)
        return record

    def missing_shards(self) -> list[range]:
        """Return the indices of each shard that is yet to be written, or whose file is gone or of another size."""
        return [self.shard_indices(index) for index in range(self.num_shards) if not self._is_there(index)]

    def noise(self, index: int) -> Tensor:
        """Return the noise `(C, h, w)` float32 of a pair: a function of the seed, the index and the shape.

        Raises:
            ValueError: If the index is out of range, or the store keeps its noise in the shards.
        """
        if not 0 <= index < self.num_pairs:
            raise ValueError(f"there is no pair {index}: the store has {self.num_pairs}")
        if self.noise_is_stored:
            raise ValueError(f"the noise of {self.path} is kept in its shards, not drawn from a seed")
        return draw_noise(int(self._manifest["seed"]), index, self.latent_shape)

    def check_noise(self) -> None:
        """Raise a ValueError unless this machine draws the noise that the pairs were made from.

        Raises:
            ValueError: If it draws other noise.
        """
        if not self.noise_is_stored and _digest(self.noise(0)) != self._manifest["noise_digest"]:
            raise ValueError(
                f"torch {torch.__version__} draws other noise from seed {self._manifest['seed']} than the pairs in "
                f"{self.path} were made from: use the torch version that made them, or make them again"
            )

    def write_shard(
        self, shard_index: int, latents: Tensor, images: Tensor, noise: Tensor | None = None, *, aside: bool = False
    ) -> None:
        """Write one shard, all or nothing.

        Args:
            shard_index: Index of the shard; writing a finished one again replaces it.
            latents: `(n, C, h, w)`, scaled and shifted.
            images: `(n, 3, H, W)` in [0, 1], a whole multiple of the latents' size; values outside are clamped.
            noise: `(n, C, h, w)`, for a store with `noise="stored"` only.
            aside: Whether another process writes the manifest; its `take_over` finishes the shard.

        Raises:
            ValueError: For wrong shapes, values that aren't finite, or a full disk. Finished shards are not touched.
        """
        count = len(self.shard_indices(shard_index))
        self._check_tensors(f"shard {shard_index}", count, latents, images, noise)
        latent_dtype = _LATENT_DTYPES[self._manifest["latent_dtype"]]
        tensors = {"latents": latents.detach().to("cpu", latent_dtype).contiguous(), "images": self._stored(images)}
        if noise is not None:
            tensors["noise"] = noise.detach().to("cpu", torch.float32).contiguous()
        content = save(tensors)
        path = self.shard_path(shard_index)
        _write_atomically(path, content)
        # Only now is the shard finished; one that the manifest doesn't list yet would be written again.
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if aside:
            _write_atomically(path.with_name(f"{_ASIDE}{path.name}"), json.dumps(record).encode())
        else:
            self._manifest["shards"][path.name] = record
            self._write_manifest()

    def take_over(self) -> None:
        """Enter into the manifest what other processes wrote aside, in this run or before an interruption."""
        found = sorted(self.path.glob(f"{_ASIDE}*"))
        for file in found:
            self._manifest["shards"][file.name.removeprefix(_ASIDE)] = json.loads(file.read_text("utf-8"))
        if found:
            self._write_manifest()
        for file in found:
            file.unlink()

    def _is_there(self, shard_index: int) -> bool:
        record, path = self.shard_record(shard_index), self.shard_path(shard_index)
        return record is not None and path.is_file() and path.stat().st_size == record["bytes"]

    def _stored(self, images: Tensor) -> Tensor:
        images = images.detach().float().clamp(0, 1)
        if self._manifest["image_dtype"] == "uint8":
            images = (images * 255).round()
        return images.to("cpu", _IMAGE_DTYPES[self._manifest["image_dtype"]]).contiguous()

    def _check_tensors(self, where: str, count: int, latents: Tensor, images: Tensor, noise: Tensor | None) -> None:
        latents_shape = (count, *self.latent_shape)
        if tuple(latents.shape) != latents_shape:
            raise ValueError(f"{where}: latents must be {latents_shape}, got {tuple(latents.shape)}")
        height, width = images.shape[-2:]
        rows, columns = self.latent_shape[1:]
        if images.ndim != 4 or images.shape[:2] != (count, 3) or height * columns != width * rows or height % rows:
            raise ValueError(
                f"{where}: images must be ({count}, 3, f * {rows}, f * {columns}) with a whole f, "
                f"got {tuple(images.shape)}"
            )
        if (noise is not None) != self.noise_is_stored:
            raise ValueError(f"{where}: noise must be given for a store with noise='stored', and for no other")
        if noise is not None and tuple(noise.shape) != latents_shape:
            raise ValueError(f"{where}: noise must be {latents_shape}, got {tuple(noise.shape)}")
        for name, tensor in (("latents", latents), ("images", images), ("noise", noise)):
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise ValueError(f"{where}: {name} have NaN or infinite values; nothing was written")

    def _refuse_other(self, wanted: dict[str, Any]) -> None:
        found = self._manifest
        pairs = [(key, found.get(key), value) for key, value in wanted.items() if key != "fingerprint"]
        keys = sorted({*found["fingerprint"], *wanted["fingerprint"]})
        pairs += [(key, found["fingerprint"].get(key), wanted["fingerprint"].get(key)) for key in keys]
        differences = [f"{key} is {there!r} there, {here!r} here" for key, there, here in pairs if there != here]
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


def _check_choice(name: str, value: str, choices: "Mapping[str, Any] | tuple[str, ...]") -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
