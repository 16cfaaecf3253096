"""Provides all data of an experiment through one LightningDataModule whose arguments are plain values."""

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fluxsr.data.degradation import Degradation
from fluxsr.data.folders import LRFolder, OnError, PairedFolders, PhotoFolder
from fluxsr.data.samples import EpochSampler, LRSample, SampleIndex, SRSample, checked_index, collate, collate_lr
from fluxsr.data.teacher_pairs import TeacherPairs


class SRDataModule(LightningDataModule):
    """Serves photos, paired folders, teacher pairs and images to upscale.

    Training batches are `SRBatch`es of the photos and the teacher pairs together, in an order that depends on `seed`
    and the epoch only. Any number of workers and processes gets the same global batches. The rows of a batch that are
    teacher pairs have their `hr_latents` and `noise`. Validation and test images are degraded the same way each
    time; prediction gives `LRBatch`es.

    Args:
        photos: Folder, or several, of HR photos to train on.
        paired_lr: Folder of LR counterparts of `photos`, then one folder; None: photos are degraded on the fly.
        pairs: Folder of teacher pairs to train on, alone or with the photos.
        val_photos: The same as `photos`, for validation; none: no validation.
        val_paired_lr: The same as `paired_lr`, for validation.
        test_photos: The same as `photos`, for the test.
        test_paired_lr: The same as `paired_lr`, for the test.
        predict: Images to upscale: a folder, a file, or several.
        scale: Magnification.
        crop: Side of training crops in HR pixels; None: whole images, which then must be of one size.
        val_crop: Side of validation crops, the same each time; None: whole images, one at a time.
        val_multiple_of: What both sides of whole validation and test images are cut to multiples of; None: `scale`.
        degradation: Makes LR from HR; None: `RealESRGANDegradation(scale)`.
        flip: Mirror every other training crop of photos.
        enlarge: Range of the factor by which every other training crop of photos is enlarged, as in `PhotoFolder`.
        batch_size: Images per step and process.
        num_workers: Worker processes per process.
        seed: Seed of order, crops and degradations.
        samples_per_image: Training crops of each photo in one epoch.
        cache: Keep decoded photos in memory (3 bytes a pixel, in each worker process).
        on_error: "raise", or "skip" photos that can't be read, with a warning.
        verify_pairs: Check the checksums of `pairs` at the start.

    Raises:
        ValueError: When a set is set up: for folders, images or pair stores that can't be used, and for fewer training
            samples than one global batch.
    """

    def __init__(
        self,
        photos: str | Path | list[str] | None = None,
        *,
        paired_lr: str | Path | None = None,
        pairs: str | Path | None = None,
        val_photos: str | Path | list[str] | None = None,
        val_paired_lr: str | Path | None = None,
        test_photos: str | Path | list[str] | None = None,
        test_paired_lr: str | Path | None = None,
        predict: str | Path | list[str] | None = None,
        scale: int = 4,
        crop: int | None = 512,
        val_crop: int | None = None,
        val_multiple_of: int | None = None,
        degradation: Degradation | None = None,
        flip: bool = True,
        enlarge: tuple[float, float] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        samples_per_image: int = 1,
        cache: bool = False,
        on_error: OnError = "raise",
        verify_pairs: bool = True,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size must be at least 1 and num_workers 0, got {batch_size} and {num_workers}")
        self.photos = _at_home(photos)
        self.paired_lr = _at_home(paired_lr)
        self.pairs = _at_home(pairs)
        self.val_photos = _at_home(val_photos)
        self.val_paired_lr = _at_home(val_paired_lr)
        self.test_photos = _at_home(test_photos)
        self.test_paired_lr = _at_home(test_paired_lr)
        self.predict = _at_home(predict)
        self.scale = scale
        self.crop = crop
        self.val_crop = val_crop
        self.val_multiple_of = val_multiple_of
        self.degradation = degradation
        self.flip = flip
        self.enlarge = enlarge
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.samples_per_image = samples_per_image
        self.cache = cache
        self.on_error: OnError = on_error
        self.verify_pairs = verify_pairs
        self.train_set: Dataset[SRSample] | None = None
        self.val_set: Dataset[SRSample] | None = None
        self.test_set: Dataset[SRSample] | None = None
        self.predict_set: Dataset[LRSample] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Open the sets of a stage; None: all that are configured."""
        trains = stage == "fit" or (stage is None and bool(self.photos or self.pairs))
        if trains and self.train_set is None:
            self.train_set = self._training_set()
        if stage in ("fit", "validate", None) and self.val_set is None:
            self.val_set = self._photo_set(
                "val_", self.val_photos, self.val_paired_lr, self.val_crop, required=stage == "validate"
            )
        if stage in ("test", None) and self.test_set is None:
            self.test_set = self._photo_set(
                "test_", self.test_photos, self.test_paired_lr, None, required=stage == "test"
            )
        if stage in ("predict", None) and self.predict_set is None:
            if self.predict is None and stage == "predict":
                raise ValueError("nothing to upscale: give data.predict, a folder of images or an image file")
            self.predict_set = None if self.predict is None else LRFolder(self.predict)

    @property
    def pairs_fingerprint(self) -> dict[str, Any] | None:
        """The origin of the teacher pairs that are trained on; None before `setup`, or without pairs."""
        parts = self.train_set.sets if isinstance(self.train_set, _Mixture) else [self.train_set]
        return next((part.store.fingerprint for part in parts if isinstance(part, TeacherPairs)), None)

    def train_dataloader(self) -> DataLoader[SRSample]:
        """Shuffled `SRBatch`es of `batch_size`; the last incomplete one is dropped."""
        dataset = self.train_set if self.train_set is not None else self._training_set()
        world_size = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        length = len(dataset)  # type: ignore[arg-type]
        if length < world_size * self.batch_size:
            raise ValueError(
                f"{length} training samples are fewer than one batch of {self.batch_size} on each of {world_size} "
                "process(es): give more images, a smaller data.batch_size, or a larger data.samples_per_image"
            )
        sampler = EpochSampler(
            length, num_replicas=world_size, rank=rank, seed=self.seed, batch_size=self.batch_size,
            batches_done=self._batches_done if self.trainer else None,
        )  # fmt: skip
        return self._loader(dataset, self.batch_size, collate, sampler)

    def _batches_done(self) -> int:
        # Restored from a checkpoint before the loaders are asked for their first batch. Lightning's epoch counters say
        # different things depending on where in the epoch the checkpoint was written; this one never does.
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready if self.trainer else 0

    def val_dataloader(self) -> DataLoader[SRSample] | list[DataLoader[SRSample]]:
        """`SRBatch`es in the order of names: whole images one by one, crops in batches. No loader without a set."""
        batch_size = 1 if self.val_crop is None else self.batch_size
        return [] if self.val_set is None else self._loader(self.val_set, batch_size, collate)

    def test_dataloader(self) -> DataLoader[SRSample] | list[DataLoader[SRSample]]:
        """As `val_dataloader`, with whole images always."""
        return [] if self.test_set is None else self._loader(self.test_set, 1, collate)

    def predict_dataloader(self) -> DataLoader[LRSample] | list[DataLoader[LRSample]]:
        """`LRBatch`es of one image each, in the order of names."""
        return [] if self.predict_set is None else self._loader(self.predict_set, 1, collate_lr)

    def _training_set(self) -> Dataset[SRSample]:
        photos = self._photo_set("", self.photos, self.paired_lr, self.crop, training=True)
        sets: list[Dataset[SRSample]] = [] if photos is None else [photos]
        if self.pairs is not None:
            sets.append(
                TeacherPairs(
                    self.pairs, degradation=self.degradation, scale=self.scale, crop=self.crop, seed=self.seed,
                    verify=self.verify_pairs,
                )
            )  # fmt: skip
        if not sets:
            raise ValueError("nothing to train on: give data.photos, a folder of photos, or data.pairs, a pair store")
        return sets[0] if len(sets) == 1 else _Mixture(sets)

    def _photo_set(
        self, prefix: str, photos: Any, lr_path: Any, crop: int | None, training: bool = False, required: bool = False
    ) -> Dataset[SRSample] | None:
        """Return the photos of a stage, whose options begin with `prefix`; None where none are configured."""
        if photos is None:
            if required or lr_path is not None:
                what = f"data.{prefix}paired_lr was given without" if lr_path else "nothing to evaluate on: give"
                raise ValueError(f"{what} data.{prefix}photos, a folder of HR photos")
            return None
        common: dict[str, Any] = {
            "crop": crop,
            "scale": self.scale,
            "flip": training and self.flip,
            "samples_per_image": self.samples_per_image if training else 1,
            "cache": training and self.cache,
            "seed": self.seed,
            "on_error": self.on_error,
            "multiple_of": None if training else self.val_multiple_of,
        }
        enlarge = self.enlarge if training else None
        if lr_path is None:
            return PhotoFolder(photos, degradation=self.degradation, enlarge=enlarge, **common)
        if enlarge is not None:
            raise ValueError(
                "data.enlarge is for photos that are degraded on the fly, and data.paired_lr has LR images"
            )
        if not isinstance(photos, str | Path):
            raise ValueError(
                f"data.{prefix}paired_lr goes with one folder in data.{prefix}photos, got {len(photos)}: {photos}"
            )
        return PairedFolders(photos, lr_path, **common)

    def _loader(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        collate_fn: Callable[[list[Any]], Any],
        sampler: EpochSampler | None = None,
    ) -> DataLoader[Any]:
        kind = DataLoader if sampler is None else _TrainingLoader
        return kind(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate_fn,
            pin_memory=torch.cuda.is_available(),
            drop_last=sampler is not None,
            persistent_workers=self.num_workers > 0,
        )


def _at_home(place: Any) -> Any:
    """Return a path, or several, with ``~`` written out; what is none is left as it is."""
    if isinstance(place, list):
        return [_at_home(one) for one in place]
    return type(place)(Path(place).expanduser()) if isinstance(place, str | Path) and str(place)[:1] == "~" else place


class _TrainingLoader(DataLoader[Any]):
    """Tells Lightning that it resumes; there is nothing to keep, since the sampler reads its position off the trainer."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Mixture(Dataset[SRSample]):
    """Several datasets one after the other; `ConcatDataset` for indices that may be `(epoch, index)`."""

    def __init__(self, sets: Sequence[Dataset[SRSample]]) -> None:
        self.sets = list(sets)
        self.ends = list(accumulate(len(part) for part in sets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: SampleIndex) -> SRSample:
        epoch, position = checked_index(index, len(self))
        number = bisect(self.ends, position)
        begin = self.ends[number - 1] if number else 0
        return self.sets[number][(epoch, position - begin)]._replace(index=position)
