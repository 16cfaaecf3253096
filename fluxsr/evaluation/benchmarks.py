"""Reads the field's benchmarks from `benchmarks.csv`: their files, their scale and crop, and where to get them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fluxsr.digest import file_digest
from fluxsr.images.formats import is_picture_name

FULL_REFERENCE = ("psnr", "ssim", "lpips_alex", "dists")
NO_REFERENCE = ("niqe",)


class Layout(NamedTuple):
    """Where HR and LR files lie below a benchmark's folder, as patterns; empty: there are none."""

    hr: str
    lr: str


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: Name, as ``--benchmark`` takes it.
        title: Title, as papers write it.
        folders: Names of its folder below ``--root``; the root itself may be it, too.
        layouts: Folder layouts that are in circulation.
        images: Number of images.
        scale: Magnification.
        crop: Pixels cut off each side for PSNR and SSIM.
        metrics: Metrics that make sense to compare.
        source: Place where users get it.
        published: Dataset and setting of the published rows that belong beside it, see ``published_results.csv``.
        sha256: Checksum of all its files, by :func:`digest`; ``None``: not known to us, so it can't be checked.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    images: int
    source: str
    scale: int = 4
    crop: int = 0
    metrics: tuple[str, ...] = FULL_REFERENCE
    published: tuple[str, str] | None = None
    sha256: str | None = None


# By the names that the table has for them; there, a layout of one benchmark alone is "HR LR".
_LAYOUTS = {
    "selfexsr": (Layout("*_SRF_4_HR.png", "*_SRF_4_LR.png"), Layout("image_SRF_4/*_HR.png", "image_SRF_4/*_LR.png")),
    "basicsr": (Layout("GTmod12/*.png", "LRbicx4/*.png"),),
    "crops": tuple(
        Layout(f"{hr}/*.png", f"{lr}/*.png")
        for hr, lr in (("HR", "LR"), ("test_HR", "test_LR"), ("gt", "lq"), ("GT", "LQ"))
    ),
    "lr only": (Layout("", "*"), Layout("", "LQ/*"), Layout("", "lq/*")),
}


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file beside this one; lines that begin with # are remarks."""
    with Path(__file__).with_name(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _benchmarks() -> Iterator[Benchmark]:
    for row in read_table("benchmarks.csv"):
        layouts = [_LAYOUTS.get(part) or [Layout(*part.split())] for part in row["layouts"].split("; ")]
        yield Benchmark(
            row["name"],
            row["title"],
            tuple(row["folders"].split("; ")),
            tuple(layout for several in layouts for layout in several),
            int(row["images"]),
            row["source"],
            int(row["scale"]),
            int(row["crop"]),
            tuple(row["metrics"].split()),
            (row["dataset"], row["setting"]) if row["dataset"] else None,
            row["sha256"] or None,
        )


BENCHMARKS = {benchmark.name: benchmark for benchmark in _benchmarks()}
"""Every benchmark by name: its images and how many, its layout on disk, its protocol and where it comes from."""


def find_benchmark(name: str, root: str | Path | None) -> tuple[Benchmark, str | None, str]:
    """Return a benchmark and the patterns of its HR and LR files, for :func:`fluxsr.evaluation.open_benchmark`."""
    key = name.lower().replace("-", "_")
    if key not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}: choose {', '.join(BENCHMARKS)}, or give a folder with --hr")
    benchmark = BENCHMARKS[key]
    if root is None:
        raise ValueError(f"give --root, the folder that {benchmark.title} lies in. Get it from: {benchmark.source}")
    for folder in (*(Path(root) / folder for folder in benchmark.folders), Path(root)):
        for layout in benchmark.layouts:
            hr, lr = (folder / pattern if pattern else None for pattern in layout)
            if _images(folder, layout.lr) and (hr is None or _images(folder, layout.hr)):
                return benchmark, None if hr is None else str(hr), str(lr)
    patterns = " or ".join(f"{layout.hr} with {layout.lr}" if layout.hr else layout.lr for layout in benchmark.layouts)
    raise ValueError(
        f"{benchmark.title} is not in {root}: looked there and in {', '.join(benchmark.folders)} for {patterns}. "
        f"Get it from: {benchmark.source}"
    )


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of a set of files, whatever they are called: of the sorted SHA-256 of each, in hexadecimal."""
    each = sorted(map(file_digest, paths))
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def _images(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if is_picture_name(path)]
