"""Pairs the images of one evaluation, a benchmark's or a folder's, and knows the sizes that results must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fluxsr.evaluation.benchmarks import Benchmark, digest, find_benchmark
from fluxsr.images import check_sizes, images_by_name, match_names, read_image, read_size
from fluxsr.images.resize import imresize, rounded

# degrade(hr_image, number) -> lr_image; number is the image's place in the sorted list.
Degrade = Callable[[Tensor, int], Tensor]


class Item(NamedTuple):
    """One image: its files, as far as there are any, and the (height, width) of what is measured."""

    hr: Path | None
    lr: Path | None
    size: tuple[int, int]


@dataclass(frozen=True)
class TestSet:
    """The images that systems are measured on.

    Attributes:
        items: Items by the HR file's name (the LR file's where there is no HR).
        scale: Magnification; ``None`` where only results are compared with HR images, at any scale.
        lr: Source of the LR images: ``files``, ``bicubic``, another degradation's name, or ``none``.
        how: Rule by which HR and LR files were matched.
        facts: Facts of the benchmark, as they go into the results.
        degrade: Makes the LR image where there is no file; its number is the image's place among all.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    items: dict[str, Item]
    scale: int | None
    lr: str
    how: str
    facts: dict[str, Any]
    degrade: Degrade | None = None

    @property
    def has_reference(self) -> bool:
        """Whether there are HR images."""
        return all(item.hr is not None for item in self.items.values())

    @property
    def has_lr(self) -> bool:
        """Whether there are LR images, or a degradation that makes them."""
        return self.degrade is not None or all(item.lr is not None for item in self.items.values())

    def hr_image(self, name: str) -> Tensor | None:
        """Return the HR image ``(1, 3, H, W)``, cut right and below to a multiple of the scale."""
        item = self.items[name]
        return None if item.hr is None else read_image(item.hr)[None, :, : item.size[0], : item.size[1]]

    def lr_image(self, name: str) -> Tensor | None:
        """Return the LR image ``(1, 3, h, w)``: the file, or what the degradation makes of the HR image."""
        item = self.items[name]
        if item.lr is not None:
            return read_image(item.lr)[None]
        hr_image = self.hr_image(name)
        if self.degrade is None or hr_image is None:
            return None
        return self.degrade(hr_image, self.number(name))

    def number(self, name: str) -> int:
        """Return the place of an image among all."""
        return list(self.items).index(name)


def bicubic_degradation(scale: int) -> Degrade:
    """Return MATLAB's bicubic shrinking, rounded to 8 bit: the classic benchmarks' degradation."""
    return lambda hr_image, number: rounded(
        imresize(hr_image, (hr_image.shape[-2] // scale, hr_image.shape[-1] // scale))
    )


def open_benchmark(name: str, root: str | Path | None) -> tuple[TestSet, Benchmark]:
    """Open a benchmark; its files are compared with the checksum, where one is known.

    Args:
        name: A key of :data:`BENCHMARKS`.
        root: The benchmark's own folder, or that of several.

    Raises:
        ValueError: If the name is unknown or the files aren't there, saying where users get them; as :func:`open_folders`.
    """
    benchmark, hr, lr = find_benchmark(name, root)
    opened = open_folders(hr, lr, benchmark.scale)
    files = [path for item in opened.items.values() for path in (item.hr, item.lr) if path is not None]
    found = digest(files)
    facts = {
        "name": benchmark.name,
        "title": benchmark.title,
        "sha256": found,
        "original": None if benchmark.sha256 is None else found == benchmark.sha256,
        "expected_images": benchmark.images,
        "published": benchmark.published,
        "source": benchmark.source,
    }
    return replace(opened, facts=facts), benchmark


def open_folders(
    hr: str | Path | None,
    lr: str | Path | None = None,
    scale: int | None = None,
    degrade: Degrade | None = None,
    lr_name: str = "none",
) -> TestSet:
    """Open your own folders (or patterns).

    Args:
        hr: The reference images; ``None``: there are none.
        lr: The images to restore; ``None``: ``degrade`` makes them, or only results are compared.
        scale: Magnification; by default what HR and LR sizes say, or 4 without HR.
        degrade: Makes LR images from HR images.
        lr_name: Name for its results.

    Raises:
        ValueError: Naming images that are missing, extra or of a wrong size; if there is neither ``hr`` nor ``lr``.
    """
    named = hr if hr is not None else lr
    if named is None:
        raise ValueError("there is nothing to measure on: give --benchmark, --hr or --lr")
    reference = images_by_name(named)
    matching = match_names(list(reference), lr, "LR") if hr is not None and lr is not None else None
    lr_files = matching.files if matching is not None else {} if hr is not None else reference
    if matching is not None and scale is None:
        name = next(iter(reference))
        scale = max(1, round(read_size(reference[name])[1] / read_size(lr_files[name])[1]))
    if scale is None and (lr is not None or degrade is not None):
        scale = 4
    factor, items = scale or 1, {}
    for name, path in reference.items():
        height, width = read_size(path)
        if hr is None:
            items[name] = Item(None, path, (height * factor, width * factor))
        else:
            size = (height // factor * factor, width // factor * factor)
            items[name] = Item(path, lr_files.get(name), size)
    if matching is not None:
        sizes = {name: (item.size[0] // factor, item.size[1] // factor) for name, item in items.items()}
        check_sizes(lr_files, sizes, f"LR, at x{scale}")
    facts = {"name": None, "title": str(named), "published": None}
    return TestSet(items, scale, "files" if lr_files else lr_name, matching.how if matching else "", facts, degrade)
