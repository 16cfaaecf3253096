"""Reads the papers' tables as they printed them, and states when they can't be compared with your own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fluxsr.evaluation.benchmarks import BENCHMARKS, read_table
from fluxsr.evaluation.metrics import metrics_of_column, row_of

COLUMNS = ("psnr", "ssim", "lpips", "dists", "fid", "niqe", "musiq", "maniqa", "clipiqa", "topiq", "qalign")
SETTINGS = {"full": "full images", "crop": "crops 128 to 512"}


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
    rows = [
        PublishedRow(
            row["source"],
            row["dataset"],
            row["setting"],
            row["method"],
            int(row["steps"]),
            {column: float(row[column]) for column in COLUMNS if row[column]},
        )
        for row in read_table("published_results.csv")
        if "ablation" not in row["source"]
    ]
    return [row for row in rows if dataset in (None, row.dataset) and setting in (None, row.setting)]


def published_efficiency() -> list[dict[str, str]]:
    """Return the published times and sizes: source, method, steps, params_m, macs_g, seconds, setting; as printed."""
    return read_table("published_efficiency.csv")


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
    said = [
        f"papers also print {dataset} on {SETTINGS[other]}: those rows are left out, this run is on {SETTINGS[setting]}"
        for other in sorted({row.setting for row in published_results(dataset)} - {setting})
    ]
    expected = max((one.images for one in BENCHMARKS.values() if one.published == (dataset, setting)), default=images)
    if images != expected:
        said.append(f"the published means are over {expected} images, this run's over {images}: don't compare them")
    if protocol["crop"]:
        said.append(f"{protocol['crop']} pixels are cut off each side here, and none in the published rows")
    if protocol["lr"] != "files":
        said.append(f"the LR images were made here ({protocol['lr']}), the papers have others")
    columns = {column for row in published_results(dataset, setting) for column in row.values}
    for name in metrics:
        row = row_of(name)
        nearest = next(iter(metrics_of_column(row.column)), name)
        if row.note and row.column in columns and (nearest == name or nearest not in metrics):
            said.append(row.note)
    return list(dict.fromkeys(said))
