"""Defines what the datasets return, how it is batched, and the order, which no number of workers or ranks changes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

# Which of a sample's random choices a seed is for: the crop must not be correlated with the degradation.
CROP_STREAM, DEGRADATION_STREAM = 0, 1

SampleIndex = int | tuple[int, int]
"""What a dataset is indexed by: `(epoch, index)`, or `index` alone, which means epoch 0."""


class SRSample(NamedTuple):
    """One training or validation sample, shaped as a row of :class:`SRBatch`; only teacher pairs have latents and noise."""

    hr_image: Tensor
    lr_image: Tensor
    index: int  # type: ignore[assignment]
    hr_latents: Tensor | None = None
    noise: Tensor | None = None


class SRBatch(NamedTuple):
    """A batch of `SRSample`s, as the training module receives it.

    Args:
        hr_image: `(B, 3, H, W)` float32 in [0, 1].
        lr_image: `(B, 3, H / scale, W / scale)` float32 in [0, 1]; resizing it to the target size is the module's work.
        index: `(B,)` int64.
        hr_latents: `(K, C, h, w)` float32 of the K rows that are teacher pairs, or None where none is.
        noise: Noise from which the teacher made them, shaped as `hr_latents`.
        pair_rows: The K rows of the batch that `hr_latents` and `noise` belong to, ascending; None: all.
    """

    hr_image: Tensor
    lr_image: Tensor
    index: Tensor  # type: ignore[assignment]
    hr_latents: Tensor | None = None
    noise: Tensor | None = None
    pair_rows: tuple[int, ...] | None = None


class LRSample(NamedTuple):
    """One image to upscale: `lr_image` `(3, h, w)` float32 in [0, 1], its `index` and the `path` it was read from."""

    lr_image: Tensor
    index: int  # type: ignore[assignment]
    path: str


class LRBatch(NamedTuple):
    """Images to upscale.

    Attributes:
        lr_image: `(B, 3, h, w)` in [0, 1].
        index: `(B,)` int64, each image's place in its set.
        paths: Paths of the B files.
    """

    lr_image: Tensor
    index: Tensor  # type: ignore[assignment]
    paths: list[str]


def collate(samples: Sequence[SRSample]) -> SRBatch:
    """Stack samples of one size into a batch.

    A sample that has but one of latents and noise, where others have both, counts as a photo.
    """
    sizes = sorted({tuple(sample.hr_image.shape[-2:]) for sample in samples})
    if len(sizes) > 1:
        raise ValueError(f"images of sizes {sizes} don't fit in one batch: give a crop, or use batch size 1")
    latents, noise = ([getattr(sample, name) for sample in samples] for name in ("hr_latents", "noise"))
    kept = [column for column in (latents, noise) if any(one is not None for one in column)]
    rows = tuple(row for row in range(len(samples)) if kept and all(column[row] is not None for column in kept))
    return SRBatch(
        hr_image=torch.stack([sample.hr_image for sample in samples]),
        lr_image=torch.stack([sample.lr_image for sample in samples]),
        index=torch.tensor([sample.index for sample in samples]),
        hr_latents=_stack_rows(latents, rows),
        noise=_stack_rows(noise, rows),
        pair_rows=rows if 0 < len(rows) < len(samples) else None,
    )


def collate_lr(samples: Sequence[LRSample]) -> LRBatch:
    """Stack images to upscale; with images of several sizes use batch size 1."""
    return LRBatch(
        lr_image=torch.stack([sample.lr_image for sample in samples]),
        index=torch.tensor([sample.index for sample in samples]),
        paths=[sample.path for sample in samples],
    )


def _stack_rows(tensors: list[Tensor | None], rows: tuple[int, ...]) -> Tensor | None:
    present = [tensor for row in rows if (tensor := tensors[row]) is not None]
    return torch.stack(present) if present else None


def sample_seed(seed: int, *position: int) -> int:
    """Seed of one sample's randomness: a stable hash of `(seed, *position)`, such as `(seed, epoch, index)`.

    It depends on nothing else (no process, worker, rank, platform or library version), and lies in [0, 2**63).

    torch's CPU generator uses the low 32 bits of a seed. Two of n samples therefore share their randomness with a
    probability of about n**2 / 2**33: 0.07 % for 2,400.

    Args:
        seed: Seed of the whole run.
        *position: Whole numbers that tell this sample from the others.
    """
    text = ",".join(str(int(number)) for number in (seed, *position))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def sample_generator(seed: int, *position: int) -> torch.Generator:
    """Return a CPU generator seeded by `sample_seed(seed, *position)`."""
    return torch.Generator().manual_seed(sample_seed(seed, *position))


def checked_index(index: SampleIndex, length: int) -> tuple[int, int]:
    """Return (epoch, index) of either form, with negative indices counted from the end."""
    epoch, position = index if isinstance(index, tuple) else (0, index)
    if not -length <= position < length:  # by which Python's iteration over a dataset ends
        raise IndexError(f"sample {position} of a dataset of {length}")
    return epoch, position % length


def draw_corner(size: tuple[int, int], crop: int, step: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw the top left corner of a `crop` x `crop` square inside (H, W), in multiples of `step`."""
    rows, columns = ((side - crop) // step + 1 for side in size)
    drawn = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return int(rows * drawn[0]) * step, int(columns * drawn[1]) * step


class EpochSampler(DistributedSampler[int]):
    """A `DistributedSampler` that yields `(epoch, index)`, so that datasets need no state to know the epoch.

    The order is a permutation that depends on `(seed, epoch)` only. Rank r takes the rows `r::num_replicas` of it, so
    the global batch at a step is the same for any split of one global batch size over ranks. Because the epoch travels
    with the index, persistent workers see it too.

    With `batches_done` the position follows from it alone. A run that resumes in the middle of an epoch then sees
    the samples that it would have seen. Epochs that are cut short (`limit_train_batches`) continue with the samples that
    are left, and each has the same length. Without it, `set_epoch` sets the epoch, and each further iteration is the
    next epoch.

    Args:
        length: Number of samples in the dataset.
        num_replicas: Number of processes.
        rank: This process, in [0, num_replicas).
        seed: Seed of the order.
        batch_size: Batch size of a process; the last incomplete batch of an epoch is taken to be dropped.
        batches_done: Returns how many batches this process has had, over all epochs.
    """

    def __init__(
        self,
        length: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        batch_size: int = 1,
        batches_done: Callable[[], int] | None = None,
    ) -> None:
        # The sampler asks a dataset for its length only.
        dataset = cast(Dataset[int], range(length))
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.batch_size = batch_size
        self.batches_done = batches_done

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        if self.batches_done is None:
            epoch = self.epoch
            self.epoch += 1
            return iter(self._epoch(epoch))
        per_epoch = max(1, self.num_samples // self.batch_size)
        epoch, done = divmod(self.batches_done(), per_epoch)
        whole = per_epoch * self.batch_size
        both = chain(self._epoch(epoch)[:whole], self._epoch(epoch + 1)[:whole] if done else ())
        return islice(both, done * self.batch_size, done * self.batch_size + self.num_samples)

    def _epoch(self, epoch: int) -> list[tuple[int, int]]:
        current, self.epoch = self.epoch, epoch
        order = [(epoch, index) for index in super().__iter__()]
        self.epoch = current
        return order
