"""Reads datasets from folders of images: photos degraded on the fly, pairs of folders, and images to upscale."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from fluxsr.data.degradation import Degradation
from fluxsr.data.degradation.base import check_scale
from fluxsr.data.degradation.real_esrgan import degradation_for
from fluxsr.data.samples import (
    CROP_STREAM,
    DEGRADATION_STREAM,
    LRSample,
    SampleIndex,
    SRSample,
    checked_index,
    draw_corner,
    sample_generator,
    sample_seed,
)
from fluxsr.images import images_by_name, list_images, match_names, read_image, read_pixels, read_size
from fluxsr.images.convert import Pixels, to_tensor
from fluxsr.images.listing import named

OnError = Literal["raise", "skip"]
Paths = str | Path | Sequence[str | Path]

_warned: set[str] = set()
_HELP = "Replace it by a good copy, delete it, or skip it with on_error='skip'"

Item = TypeVar("Item")
Content = TypeVar("Content")


class _Remembered(dict[Path, Pixels]):
    """Pixels by their file, which is read once."""

    def __missing__(self, path: Path) -> Pixels:
        self[path] = read_pixels(path)
        return self[path]


class PhotoFolder(Dataset[SRSample]):
    """High-resolution photos, cropped, flipped and degraded on the fly.

    Sample `(epoch, index)` depends on `(seed, epoch, index)` and the folder's content only; `index` alone means epoch
    0.

    Args:
        path: A folder, searched with its subfolders, or several; a photo that is found twice counts once.
        crop: Side of the random square crop in HR pixels, a multiple of `scale`; None: the whole photo, unflipped, cut
            at the right and bottom to multiples of `multiple_of`: for validation.
        scale: Magnification.
        degradation: Makes LR from HR; None: `RealESRGANDegradation(scale)`.
        flip: Mirror every other crop.
        enlarge: Range of the factor by which every other crop is enlarged from a smaller piece of the photo, at least
            1; None: none is. The pixels of a camera are softer than those of photos that were reduced for the web, and
            a model that has seen only the latter sharpens the former too much (our own measure).
        samples_per_image: Crops taken of each photo in one epoch.
        cache: Keep decoded photos in memory (3 bytes a pixel, in each worker process).
        seed: Seed of crops, flips and degradations.
        on_error: "raise", or "skip": leave out photos that are too small or can't be read, with a warning that names
            them. A photo found damaged only when it is its turn is replaced by the next good one.
        multiple_of: What both sides of a whole photo are made multiples of, itself a multiple of `scale`; None:
            `scale`.

    Raises:
        ValueError: If a folder is missing or empty, an argument makes no sense, photos are smaller than the crop, or
            (on access) a photo can't be read.
    """

    def __init__(
        self,
        path: Paths,
        *,
        crop: int | None = 512,
        scale: int = 4,
        degradation: Degradation | None = None,
        flip: bool = True,
        enlarge: tuple[float, float] | None = None,
        samples_per_image: int = 1,
        cache: bool = False,
        seed: int = 0,
        on_error: OnError = "raise",
        multiple_of: int | None = None,
    ) -> None:
        _check_arguments(crop, scale, multiple_of, samples_per_image, on_error)
        if enlarge is not None and not 1 <= enlarge[0] <= enlarge[1] < math.inf:
            raise ValueError(f"enlarge must be a range of factors of at least 1, (low, high), got {tuple(enlarge)}")
        if enlarge is not None and crop is None:
            raise ValueError(f"enlarge={tuple(enlarge)} is for crops, and crop is None: give a crop, or leave it out")
        least, what = _least_side(crop, multiple_of, scale)
        self.paths = list(_usable_sizes(_list_all(path), least, what, on_error))
        self.crop = crop
        self.scale = scale
        self.degradation: Degradation = degradation_for(scale, degradation)
        self.flip = flip
        self.enlarge = enlarge
        self.samples_per_image = samples_per_image
        self.seed = seed
        self.on_error: OnError = on_error
        self.multiple_of = multiple_of or scale
        self._read = _Remembered().__getitem__ if cache else read_pixels

    def __len__(self) -> int:
        return len(self.paths) * self.samples_per_image

    def __getitem__(self, index: SampleIndex) -> SRSample:
        epoch, index = checked_index(index, len(self))
        pixels = _read_good(self._read, self.paths, index % len(self.paths), self.on_error)
        generator = sample_generator(self.seed, epoch, index, CROP_STREAM)
        if self.crop is None:
            hr_image = to_tensor(_cut_to_multiple(pixels, self.multiple_of))
        else:
            side = self._draw_side(self.crop, generator)
            top, left = draw_corner(pixels.shape[:2], side, 1, generator)
            hr_image = to_tensor(pixels[top : top + side, left : left + side])
            if side < self.crop:
                size = (self.crop, self.crop)
                hr_image = interpolate(hr_image[None], size, mode="bicubic", antialias=False)[0].clamp(0, 1)
            if self.flip and _coin(generator):
                hr_image = hr_image.flip(-1)
        lr_image = self.degradation(hr_image, seeds=sample_seed(self.seed, epoch, index, DEGRADATION_STREAM))
        return SRSample(hr_image, lr_image, index)

    def _draw_side(self, crop: int, generator: torch.Generator) -> int:
        """Draw the side of the piece that becomes a crop."""
        if self.enlarge is None or _coin(generator):
            return crop
        low, high = self.enlarge
        factor = low + (high - low) * float(torch.rand((), generator=generator))
        return max(1, round(crop / factor))


class PairedFolders(Dataset[SRSample]):
    """Photos with LR counterparts of their own, such as two shots by a real camera.

    Files are matched by their path in the folder, without suffix and, where needed, without endings such as x4, _LR4,
    _HR (see `fluxsr.images.match_names`). The LR image must be exactly `scale` times smaller, and not resized to the HR
    size already.

    The other arguments are those of `PhotoFolder`; both images are cropped and mirrored alike.

    Args:
        hr_path: Folder of HR images, searched with its subfolders.
        lr_path: Folder of LR images.

    Raises:
        ValueError: If names or sizes don't match, or as `PhotoFolder`.
    """

    def __init__(
        self,
        hr_path: str | Path,
        lr_path: str | Path,
        *,
        crop: int | None = 512,
        scale: int = 4,
        flip: bool = True,
        samples_per_image: int = 1,
        cache: bool = False,
        seed: int = 0,
        on_error: OnError = "raise",
        multiple_of: int | None = None,
    ) -> None:
        _check_arguments(crop, scale, multiple_of, samples_per_image, on_error)
        hr_files = images_by_name(hr_path)
        lr_files = match_names(list(hr_files), lr_path, "LR images").files
        pairs = [(hr_files[name], lr_files[name]) for name in sorted(hr_files)]
        least, what = _least_side(crop, multiple_of, scale)
        hr_sizes = _usable_sizes([hr for hr, _ in pairs], least, what, on_error)
        lr_sizes = _usable_sizes([lr for hr, lr in pairs if hr in hr_sizes], 1, "an image", on_error)
        self.paths = [(hr, lr) for hr, lr in pairs if hr in hr_sizes and lr in lr_sizes]
        wrong = []
        for hr, lr in self.paths:
            (height, width), (lr_height, lr_width) = hr_sizes[hr], lr_sizes[lr]
            if (height, width) != (lr_height * scale, lr_width * scale):
                wrong.append(f"{hr} is {width}x{height}, {lr} is {lr_width}x{lr_height}")
        if wrong:
            raise ValueError(
                f"HR images must be exactly scale={scale} times as large as their LR images; {len(wrong)} of "
                f"{len(self.paths)} aren't: {named(wrong)}. Crop them, set scale=, or give LR images at their own small size"
            )
        self.crop = crop
        self.scale = scale
        self.flip = flip
        self.samples_per_image = samples_per_image
        self.seed = seed
        self.on_error: OnError = on_error
        self.multiple_of = multiple_of or scale
        self._read = _Remembered().__getitem__ if cache else read_pixels

    def __len__(self) -> int:
        return len(self.paths) * self.samples_per_image

    def __getitem__(self, index: SampleIndex) -> SRSample:
        epoch, index = checked_index(index, len(self))
        hr_pixels, lr_pixels = _read_good(self._read_pair, self.paths, index % len(self.paths), self.on_error)
        if self.crop is None:
            hr_image = to_tensor(_cut_to_multiple(hr_pixels, self.multiple_of))
            lr_image = to_tensor(_cut_to_multiple(lr_pixels, self.multiple_of // self.scale))
            return SRSample(hr_image, lr_image, index)
        generator = sample_generator(self.seed, epoch, index, CROP_STREAM)
        lr_crop = self.crop // self.scale
        top, left = draw_corner(lr_pixels.shape[:2], lr_crop, 1, generator)
        lr_image = to_tensor(lr_pixels[top : top + lr_crop, left : left + lr_crop])
        top, left = top * self.scale, left * self.scale
        hr_image = to_tensor(hr_pixels[top : top + self.crop, left : left + self.crop])
        if self.flip and _coin(generator):
            hr_image, lr_image = hr_image.flip(-1), lr_image.flip(-1)
        return SRSample(hr_image, lr_image, index)

    def _read_pair(self, paths: tuple[Path, Path]) -> tuple[Pixels, Pixels]:
        return self._read(paths[0]), self._read(paths[1])


class LRFolder(Dataset[LRSample]):
    """Images to upscale, of any size, in the order of their names.

    Args:
        path: A folder, searched with its subfolders, an image file, or several of both.

    Raises:
        ValueError: If one is missing or a folder has no image, or (on access) an image can't be read.
    """

    def __init__(self, path: Paths) -> None:
        self.paths = _list_all(path, files=True)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: SampleIndex) -> LRSample:
        _, index = checked_index(index, len(self))
        return LRSample(read_image(self.paths[index]), index, str(self.paths[index]))


def _least_side(crop: int | None, multiple_of: int | None, scale: int) -> tuple[int, str]:
    if crop is not None:
        return crop, f"crop={crop}"
    return (multiple_of, f"multiple_of={multiple_of}") if multiple_of else (scale, f"scale={scale}")


def _cut_to_multiple(pixels: Pixels, multiple: int) -> Pixels:
    height, width = pixels.shape[:2]
    return pixels[: height - height % multiple, : width - width % multiple]


def _read_good(read: Callable[[Item], Content], items: Sequence[Item], start: int, on_error: OnError) -> Content:
    """Read `items[start]` or, with `on_error="skip"`, the next readable one: the same on every rank and worker."""
    for step in range(len(items)):
        try:
            return read(items[(start + step) % len(items)])
        except ValueError as error:
            if on_error == "raise":
                raise ValueError(f"{error}. {_HELP}") from error
            _warn_once(f"skipped, and replaced by the next good image: {error}")
    raise ValueError(f"none of the {len(items)} images can be read; the first is {items[0]}")


def _warn_once(text: str) -> None:
    # Python's own "once" forgets whenever anybody touches the warning filters.
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=4)


def _list_all(paths: Paths, *, files: bool = False) -> list[Path]:
    """Return the images of one or several folders, in this order; with `files`, image files may be named, too."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if not several:
        raise ValueError("an empty list of image folders was given")
    found: list[Path] = []
    for path in map(Path, several):
        found += [path] if files and path.is_file() else list_images(path)
    return found


def _usable_sizes(paths: Sequence[Path], least: int, what: str, on_error: OnError) -> dict[Path, tuple[int, int]]:
    """Return (H, W) of the images whose both sides have `least` pixels, read from their headers; `what` decides on that."""
    sizes: dict[Path, tuple[int, int]] = {}
    small: list[str] = []
    for path in paths:
        try:
            height, width = read_size(path)
        except ValueError as error:
            if on_error == "raise":
                raise ValueError(f"{error}. {_HELP}") from error
            warnings.warn(f"left out: {error}", stacklevel=3)
            continue
        if min(height, width) < least:
            small.append(f"{path} ({width}x{height})")
        else:
            sizes[path] = (height, width)
    if small:
        text = f"{len(small)} of {len(paths)} images are smaller than {least}x{least} ({what}): {named(small)}"
        if on_error == "raise" or not sizes:
            raise ValueError(f"{text}. Set a smaller crop=, remove them, or leave them out with on_error='skip'")
        warnings.warn(f"left out: {text}", stacklevel=3)
    if not sizes:
        raise ValueError(f"none of the {len(paths)} images can be read; the first is {paths[0]}")
    return sizes


def _coin(generator: torch.Generator) -> bool:
    """Draw True with probability 1/2."""
    return bool(torch.rand((), generator=generator) < 0.5)


def _check_arguments(
    crop: int | None, scale: int, multiple_of: int | None, samples_per_image: int, on_error: str
) -> None:
    """Raise a ValueError for arguments of a photo dataset that make no sense together."""
    check_scale(scale)
    for name, value in (("crop", crop), ("multiple_of", multiple_of)):
        if value is not None and (value < 1 or value % scale):
            raise ValueError(f"{name} must be a positive multiple of scale={scale}, got {value}")
    if samples_per_image < 1:
        raise ValueError(f"samples_per_image must be at least 1, got {samples_per_image}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
