"""Reads the papers' tables as they printed them, and states when they can't be compared with your own numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fluxsr.evaluation.metrics import metrics_of_column, row_of

COLUMNS = ("psnr", "ssim", "lpips", "dists", "fid", "niqe", "musiq", "maniqa", "clipiqa", "topiq", "qalign")
SETTINGS = {"full": "full images", "crop": "crops 128 to 512"}
_FOLDER = Path(__file__).parent


class PublishedRow(NamedTuple):
    """One row of a paper's table.

    ``source`` is the paper that printed it (not always the method's own), ``setting`` a key of :data:`SETTINGS`, ``values``
    are by the table's own column names.
    """

    source: str
    dataset: str
    setting: str
    method: str
    steps: int
    values: dict[str, float]


def published_results(dataset: str | None = None, setting: str | None = None) -> list[PublishedRow]:
    """Return the published rows, of one dataset and setting if these are given; ablations are left out.

    Args:
        dataset: Name of the dataset, as the column of that name in ``published_results.csv`` has it.
        setting: Likewise: full images or crops.
    """
    rows = []
    for row in _read("published_results.csv"):
        values = {column: float(row[column]) for column in COLUMNS if row[column]}
        rows.append(
            PublishedRow(row["source"], row["dataset"], row["setting"], row["method"], int(row["steps"]), values)
        )
    return [
        row
        for row in rows
        if dataset in (None, row.dataset) and setting in (None, row.setting) and "ablation" not in row.source
    ]


def published_efficiency() -> list[dict[str, str]]:
    """Return the published times and sizes: source, method, steps, params_m, macs_g, seconds, setting; as printed."""
    return _read("published_efficiency.csv")


def beside(rows: Sequence[PublishedRow], metrics: Sequence[str]) -> dict[str, str]:
    """Return which column of the published rows belongs to which of our metrics."""
    there = {column for row in rows for column in row.values}
    found: dict[str, str] = {}
    for column in COLUMNS:
        match = next((name for name in metrics_of_column(column) if name in metrics), None)
        if column in there and match is not None:
            found[match] = column
    return found


def differences(benchmark: dict[str, Any], protocol: dict[str, Any], metrics: Sequence[str], images: int) -> list[str]:
    """Return, in sentences, what keeps the published rows of a benchmark from being compared with your own run."""
    dataset, setting = benchmark["published"]
    warnings = []
    others = {row.setting for row in published_results(dataset)} - {setting}
    for other in sorted(others):
        warnings.append(
            f"papers also print {dataset} on {SETTINGS[other]}: those rows are left out, this run is on {SETTINGS[setting]}"
        )
    if images != (expected := whole_set(dataset, setting)) and expected:
        warnings.append(f"the published means are over {expected} images, this run's over {images}: don't compare them")
    if protocol["crop"]:
        warnings.append(f"{protocol['crop']} pixels are cut off each side here, and none in the published rows")
    if protocol["lr"] != "files":
        warnings.append(f"the LR images were made here ({protocol['lr']}), the papers have others")
    for name in metrics:
        column = row_of(name).column
        nearest = next(iter(metrics_of_column(column)), name)
        printed = any(column in row.values for row in published_results(dataset, setting))
        if row_of(name).note and printed and (nearest == name or nearest not in metrics):
            warnings.append(row_of(name).note)
    return list(dict.fromkeys(warnings))


def whole_set(dataset: str, setting: str) -> int | None:
    """Return over how many images the published means of a dataset go."""
    from fluxsr.evaluation.benchmarks import BENCHMARKS

    sizes = [one.images for one in BENCHMARKS.values() if one.published == (dataset, setting)]
    return max(sizes, default=None)


def _read(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
