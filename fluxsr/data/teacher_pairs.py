"""Reads a store of teacher pairs as a dataset."""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from fluxsr.data.degradation import Degradation
from fluxsr.data.degradation.base import check_scale
from fluxsr.data.degradation.real_esrgan import degradation_for
from fluxsr.data.pair_store import PairStore
from fluxsr.data.samples import (
    CROP_STREAM,
    DEGRADATION_STREAM,
    SampleIndex,
    SRSample,
    checked_index,
    draw_corner,
    sample_generator,
    sample_seed,
)
from fluxsr.digest import file_digest
from fluxsr.images.listing import named

_AGAIN = "Run the `fluxsr pairs` command that made them once more: it makes only what is missing"
_DELETE = f"Delete the file. {_AGAIN}"


class TeacherPairs(Dataset[SRSample]):
    """Images that a teacher made, with their own noise and latents: the data of FluxSR (arXiv 2502.01993, algorithm 1).

    The image is degraded on the fly. Pairs are never mirrored: the latents of a mirrored image aren't the mirrored
    latents. Sample `(epoch, index)` depends on `(seed, epoch, index)` and the store only; `index` alone means epoch 0.

    Args:
        path: The store's folder, made by `fluxsr pairs`.
        degradation: Makes LR from HR; None: `RealESRGANDegradation(scale)`.
        scale: Magnification.
        crop: Side of a random square crop in image pixels, a multiple of `scale` and of the autoencoder's factor. The
            latents and the noise are cropped alike. None: the whole image.
        seed: Seed of crops and degradations.
        verify: Compare the shards with their checksums; without it only their sizes are checked.

    Raises:
        ValueError: If the store is missing, unfinished, damaged, or made from noise that this torch version doesn't draw. If
            `crop` doesn't fit. On access, if latents aren't finite.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        degradation: Degradation | None = None,
        scale: int = 4,
        crop: int | None = None,
        seed: int = 0,
        verify: bool = True,
    ) -> None:
        check_scale(scale)
        self.store = PairStore.open(path)
        self.scale = scale
        self.degradation: Degradation = degradation_for(scale, degradation)
        self.crop = crop
        self.seed = seed
        self._files: dict[int, Any] = {}
        self._places = self._find_pairs(verify)
        self.store.check_noise()
        first = self._file(self._places[0][0])
        self.image_size: tuple[int, int] = tuple(first.get_slice("images").get_shape()[-2:])
        self.latent_factor = self.image_size[0] // self.store.latent_shape[1]
        self._check_crop()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: SampleIndex) -> SRSample:
        epoch, index = checked_index(index, len(self))
        height, width = self.image_size
        top = left = 0
        if self.crop is not None:
            height = width = self.crop
            generator = sample_generator(self.seed, epoch, index, CROP_STREAM)
            top, left = draw_corner(self.image_size, self.crop, self.latent_factor, generator)
        image = self._read("images", index, top, left, height, width)
        hr_image = image.float() / 255
        latent_window = tuple(side // self.latent_factor for side in (top, left, height, width))
        hr_latents = self._read("latents", index, *latent_window)
        if not bool(hr_latents.isfinite().all()):
            path = self.store.shard_path(self._places[index][0])
            raise ValueError(f"the latents of pair {index} in {path} have NaN or infinite values. {_DELETE}")
        if self.store.noise_is_stored:
            noise = self._read("noise", index, *latent_window)
        else:
            row, column, rows, columns = latent_window
            noise = self.store.noise(index)[:, row : row + rows, column : column + columns].contiguous()
        lr_image = self.degradation(hr_image, seeds=sample_seed(self.seed, epoch, index, DEGRADATION_STREAM))
        return SRSample(hr_image, lr_image, index, hr_latents, noise)

    def __getstate__(self) -> dict[str, Any]:
        # Open files don't travel to a worker process; it opens its own.
        return {**self.__dict__, "_files": {}}

    def _file(self, shard_index: int) -> Any:
        if shard_index not in self._files:
            path = self.store.shard_path(shard_index)
            try:
                self._files[shard_index] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"can't read the pairs in {path}: {error}. {_DELETE}") from error
        return self._files[shard_index]

    def _read(self, key: str, index: int, top: int, left: int, height: int, width: int) -> Tensor:
        shard_index, row = self._places[index]
        part: Tensor = self._file(shard_index).get_slice(key)[row : row + 1, :, top : top + height, left : left + width]
        return part[0]

    def _find_pairs(self, verify: bool) -> list[tuple[int, int]]:
        """Return shard and row of each pair in use, and check these shards."""
        store, places = self.store, self.store.places()
        missing = sum(key not in places for key in store.keys)
        if missing:
            raise ValueError(
                f"{store.path} is unfinished: {missing} of {store.num_pairs} pairs are missing. "
                "Run the `fluxsr pairs` command that began it once more to resume it"
            )
        found = [places[key] for key in store.keys]
        faults = {index: self._fault(index, verify) for index in sorted({index for index, _ in found})}
        bad = [f"{store.shard_path(index).name} {fault}" for index, fault in faults.items() if fault]
        if bad:
            raise ValueError(f"{len(bad)} shards of {store.path} are bad: {named(bad)}. {_AGAIN}")
        return found

    def _fault(self, shard_index: int, verify: bool) -> str | None:
        path, record = self.store.shard_path(shard_index), self.store.shard_record(shard_index)
        assert record is not None
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != record["bytes"]:
            return f"has {size:,} of {record['bytes']:,} bytes"
        if verify and file_digest(path) != record["sha256"]:
            return "doesn't have the recorded checksum (delete it)"
        return None

    def _check_crop(self) -> None:
        height, width = self.image_size
        if self.crop is None:
            if height % self.scale or width % self.scale:
                raise ValueError(f"images of {width}x{height} are no multiple of scale={self.scale}: set a crop")
            return
        multiple = math.lcm(self.scale, self.latent_factor)
        if not 0 < self.crop <= min(height, width) or self.crop % multiple:
            raise ValueError(
                f"crop={self.crop} doesn't fit the pairs in {self.store.path}: their images are "
                f"{width}x{height}, and a crop must be a multiple of {multiple} "
                f"(the scale is {self.scale}, the latents' factor {self.latent_factor})"
            )
