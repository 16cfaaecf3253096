"""Provides what the folder datasets share: which files are fit for use, how they are read, and what a bad one leads to."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

from fluxsr.data.degradation.base import check_scale
from fluxsr.data.samples import SampleIndex, split_index
from fluxsr.images import images_by_name, list_images, match_names, read_pixels, read_size
from fluxsr.images.convert import Pixels
from fluxsr.images.listing import named

OnError = Literal["raise", "skip"]
Paths = str | Path | Sequence[str | Path]

_warned: set[str] = set()
_HELP = "Replace it by a good copy, delete it, or skip it with on_error='skip'"

Item = TypeVar("Item")
Content = TypeVar("Content")


class PixelReader:
    """Reads image files as integer pixels, and remembers them if told to."""

    def __init__(self, cache: bool) -> None:
        self._cache: dict[Path, Pixels] | None = {} if cache else None

    def __call__(self, path: Path) -> Pixels:
        """Return `(H, W, 3)` integers."""
        if self._cache is None:
            return read_pixels(path)
        if path not in self._cache:
            self._cache[path] = read_pixels(path)
        return self._cache[path]


def read_good(read: Callable[[Item], Content], items: Sequence[Item], start: int, on_error: OnError) -> Content:
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


def list_all(paths: Paths, *, files: bool = False) -> list[Path]:
    """Return the images of one or several folders, in this order; with `files`, image files may be named, too."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if not several:
        raise ValueError("an empty list of image folders was given")
    found: list[Path] = []
    for path in map(Path, several):
        found += [path] if files and path.is_file() else list_images(path)
    return found


def usable_sizes(paths: Sequence[Path], least: int, what: str, on_error: OnError) -> dict[Path, tuple[int, int]]:
    """Return (H, W) of the images whose both sides have `least` pixels, read from their headers.

    Raises:
        ValueError: If one is smaller or unreadable and `on_error` is "raise", or if none is left. `what` says in the
            message where `least` comes from.
    """
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


def match_pairs(hr_path: Path, lr_path: Path) -> list[tuple[Path, Path]]:
    """Return the HR and LR files of two folders that belong together, sorted by the HR files' names.

    Raises:
        ValueError: If an image has no counterpart, or two of one folder have the same name.
    """
    hr_files = images_by_name(hr_path)
    lr_files = match_names(list(hr_files), lr_path, "LR images").files
    return [(hr_files[name], lr_files[name]) for name in sorted(hr_files)]


def draw_corner(size: tuple[int, int], crop: int, step: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw the top left corner of a `crop` x `crop` square inside (H, W), in multiples of `step`."""
    rows, columns = ((side - crop) // step + 1 for side in size)
    drawn = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return int(rows * drawn[0]) * step, int(columns * drawn[1]) * step


def draw_coin(generator: torch.Generator) -> bool:
    """Draw True with probability 1/2."""
    return bool(torch.rand((), generator=generator) < 0.5)


def checked_index(index: SampleIndex, length: int) -> tuple[int, int]:
    """Return (epoch, index) with negative indices counted from the end.

    Raises:
        IndexError: If the index is out of range; Python's iteration over a dataset ends by it.
    """
    epoch, position = split_index(index)
    if not -length <= position < length:
        raise IndexError(f"sample {position} of a dataset of {length}")
    return epoch, position % length


def check_photo_arguments(
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
