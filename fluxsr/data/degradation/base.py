"""Defines what every degradation is and checks, the classic one, and mixtures of several."""

from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE = 4  # of a degradation by itself, where neither its maker nor any data say one
_OTHER_BITS = 0x6D69785F


class Degradation(ABC):
    """Makes LR images from HR ones; the base of what a YAML's `degradation` may name.

    In Python, any callable with this signature works as well.
    """

    _scale: int | None = None

    @property
    def scale(self) -> int:
        """Magnification that the model is to learn: as stated, or as the data say that it degrades, else 4."""
        return SCALE if self._scale is None else self._scale

    @scale.setter
    def scale(self, scale: int | None) -> None:
        if scale is not None:
            check_scale(scale)
        self._scale = scale

    def follow(self, scale: int) -> None:
        """Take the magnification of the data; a ValueError if another one was stated."""
        if self._scale not in (None, scale):
            raise ValueError(
                f"the data's scale is {scale} and the degradation's {self._scale}: state it once, in the data (data.scale)"
            )
        self.scale = scale

    @abstractmethod
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade `(3, H, W)` or `(B, 3, H, W)` in [0, 1] to 1/scale of its size; one seed per image."""


def check_scale(scale: int) -> None:
    """Raise a ValueError unless `scale` is a whole number from 1 on."""
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a whole number of at least 1, got {scale!r}")


def checked_images(hr_image: Tensor, seeds: int | Sequence[int], scale: int) -> tuple[Tensor, list[int]]:
    """Return `(B, 3, H, W)` float32 images and their B seeds, after checking both."""
    if hr_image.ndim not in (3, 4) or hr_image.shape[-3] != 3 or not hr_image.is_floating_point():
        raise ValueError(
            f"hr_image must be float of shape (3, H, W) or (B, 3, H, W), got {tuple(hr_image.shape)} {hr_image.dtype}"
        )
    height, width = hr_image.shape[-2:]
    if hr_image.numel() == 0 or height % scale or width % scale:
        raise ValueError(
            f"hr_image is {height}x{width}: both sides must be positive multiples of scale={scale}; crop it"
        )
    low, high = (float(bound) for bound in hr_image.aminmax())
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # False for NaN, too
        raise ValueError(f"hr_image must lie in [0, 1] and be finite, its values span [{low:g}, {high:g}]")
    images = hr_image.float()
    images = images if images.ndim == 4 else images[None]
    seeds = [seeds] if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds were given for {len(images)} images: give one per image")
    return images, seeds


@torch.no_grad()
def one_by_one(
    degrade: Callable[[Tensor, int], Tensor], hr_image: Tensor, seeds: int | Sequence[int], scale: int
) -> Tensor:
    """Degrade each image alone, by ``degrade(image, seed)``: it must not depend on its neighbors even in rounding."""
    images, seeds = checked_images(hr_image, seeds, scale)
    with _one_thread():
        lr_images = [degrade(image, seed) for image, seed in zip(images, seeds, strict=True)]
    return torch.stack(lr_images) if hr_image.ndim == 4 else lr_images[0]


def rounded(image: Tensor) -> Tensor:
    """Round an image to 8 bit, in place of its values."""
    return (image * 255.0).round_().clamp_(0.0, 255.0).div_(255.0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one CPU thread, as a data worker does anyway.

    Transforms and matrix products may round otherwise on two threads, so a sample would depend on the number of
    workers. For small crops on a busy machine, threads also wait for each other many times longer than they work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def shrunk(images: Tensor, scale: int) -> Tensor:
    """Return `(B, 3, H, W)` reduced bicubically, antialiased."""
    size = (images.shape[-2] // scale, images.shape[-1] // scale)
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


class BicubicDegradation(Degradation):
    """Antialiased bicubic downsampling, the degradation of classic super-resolution benchmarks.

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors; `seeds` change nothing. Torch's
    antialiased filter (a = -0.5, Pillow's) is used, which differs from MATLAB's in borders and rounding only.

    Args:
        scale: Magnification that the model is to learn. None: the data's, or 4.
    """

    def __init__(self, scale: int | None = None) -> None:
        self.scale = scale

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int] = 0) -> Tensor:
        """Downsample; see the class."""
        many = hr_image.ndim == 4
        images, _ = checked_images(hr_image, [0] * len(hr_image) if many else 0, self.scale)
        lr_image = rounded(shrunk(images, self.scale))
        return lr_image if many else lr_image[0]


class DegradationMix(Degradation):
    """One of several degradations for each image, drawn from its seed; a model sees mild and heavy damage in one batch.

    A model that has seen only Real-ESRGAN's damage cleans photos that hardly need it. Graded damage is known from DASR
    (Liang et al. 2022, arXiv 2203.14672, three grades in shares of 0.3, 0.3, 0.4).

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors. An image comes out exactly as the
    degradation that was drawn makes it with the same seed.

    Args:
        degradations: Degradations to choose from, at least one, all of one scale.
        shares: Share of each in the draws, in any unit; the sum need not be 1.

    Raises:
        ValueError: If there is not one positive share for each degradation, or scales differ.
    """

    def __init__(self, degradations: Sequence[Degradation], shares: Sequence[float]) -> None:
        if not degradations or len(degradations) != len(shares) or not all(share > 0 for share in shares):
            raise ValueError(
                f"give one positive share for each degradation: {len(degradations)} degradations, shares {list(shares)}"
            )
        self.degradations = list(degradations)
        own = [one._scale for one in degradations if isinstance(one, Degradation)]
        stated = {scale for scale in own if scale is not None}
        if len(stated) > 1:
            raise ValueError(f"the degradations of one mix must have one scale, got {sorted(stated)}")
        for scale in stated:
            self.follow(scale)
        self.shares = [float(share) for share in shares]

    def follow(self, scale: int) -> None:
        """Take the magnification of the data, all of them."""
        super().follow(scale)
        for one in self.degradations:
            if isinstance(one, Degradation):
                one.follow(scale)

    def drawn(self, seed: int) -> Degradation:
        """Return the degradation that an image with this seed gets."""
        # Another seed than the degradation's own, whose first numbers would else be tied to the choice.
        generator = torch.Generator().manual_seed(seed ^ _OTHER_BITS)
        bounds = list(accumulate(self.shares))
        place = float(torch.rand((), generator=generator, dtype=torch.float64)) * bounds[-1]
        return self.degradations[bisect(bounds[:-1], place)]

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade; see the class."""
        images, seeds = checked_images(hr_image, seeds, self._scale or 1)  # degradations of other kinds may have none
        lr_images = [self.drawn(seed)(image, seeds=seed) for image, seed in zip(images, seeds, strict=True)]
        return torch.stack(lr_images) if hr_image.ndim == 4 else lr_images[0]
