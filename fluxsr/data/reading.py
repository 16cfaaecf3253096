"""What the folder datasets share: which files are fit for use, how they are read, and what a bad one leads to."""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

from fluxsr.data.degradation import check_scale
from fluxsr.data.images import PixelArray, list_images, read_pixels, read_size
from fluxsr.data.samples import SampleIndex, split_index

OnError = Literal["raise", "skip"]
Paths = str | Path | Sequence[str | Path]

_NAMES_SHOWN = 5
_warned: set[str] = set()
# "0001x4", "Canon_004_LR4" and "Canon_004_HR": what the names of two paired images may differ in.
_PAIR_MARK = re.compile(r"(x\d|[-_](hr|lr|gt|lq)\d*)$", re.IGNORECASE)

Item = TypeVar("Item")
Content = TypeVar("Content")


class PixelReader:
    """Reads image files as integer pixels, and remembers them if told to."""

    def __init__(self, cache: bool) -> None:
        self._cache: dict[Path, PixelArray] | None = {} if cache else None

    def __call__(self, path: Path) -> PixelArray:
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
                raise
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
        ValueError: if one is smaller or unreadable and `on_error` is "raise", or if none is left. `what` says in the
            message where `least` comes from.
    """
    sizes: dict[Path, tuple[int, int]] = {}
    small: list[str] = []
    for path in paths:
        try:
            height, width = read_size(path)
        except ValueError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"left out: {error}", stacklevel=3)
            continue
        if min(height, width) < least:
            small.append(f"{path} ({width}x{height})")
        else:
            sizes[path] = (height, width)
    if small:
        text = f"{len(small)} of {len(paths)} images are smaller than {least}x{least} ({what}): {shown(small)}"
        if on_error == "raise" or not sizes:
            raise ValueError(f"{text}. Set a smaller crop=, remove them, or leave them out with on_error='skip'")
        warnings.warn(f"left out: {text}", stacklevel=3)
    if not sizes:
        raise ValueError(f"none of the {len(paths)} images can be read; the first is {paths[0]}")
    return sizes


def match_pairs(hr_path: Path, lr_path: Path) -> list[tuple[Path, Path]]:
    """Match the images of two folders by name, and if that fails by name without marks such as x4, _LR4, _HR.

    Raises:
        ValueError: if an image has no counterpart, or two of one folder have the same name.
    """
    hr_paths, lr_paths = list_images(hr_path), list_images(lr_path)
    hr_names, lr_names = _by_name(hr_path, hr_paths, None), _by_name(lr_path, lr_paths, None)
    if hr_names.keys() != lr_names.keys():
        hr_bare, lr_bare = _by_name(hr_path, hr_paths, _PAIR_MARK), _by_name(lr_path, lr_paths, _PAIR_MARK)
        if hr_bare.keys() == lr_bare.keys():
            hr_names, lr_names = hr_bare, lr_bare
    problems = []
    for folder, names in ((lr_path, hr_names.keys() - lr_names.keys()), (hr_path, lr_names.keys() - hr_names.keys())):
        if names:
            problems.append(f"{len(names)} missing in {folder}: {shown(sorted(names))}")
    if problems:
        raise ValueError(f"HR and LR images must have the same names (the suffix aside): {'; '.join(problems)}")
    return [(hr_names[name], lr_names[name]) for name in sorted(hr_names)]


def _by_name(folder: Path, paths: list[Path], mark: re.Pattern[str] | None) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        name = mark.sub("", name) if mark else name
        if name in names:
            raise ValueError(f"{names[name]} and {path} have one name: which of them is the pair's image isn't clear")
        names[name] = path
    return names


def shown(names: Iterable[str]) -> str:
    """Join the first few of many names."""
    listed = list(names)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(listed[:_NAMES_SHOWN]) + more


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
        IndexError: if the index is out of range; Python's iteration over a dataset ends by it.
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
