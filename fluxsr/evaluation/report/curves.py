"""Reads training curves from log folders: Lightning's CSV files and TensorBoard's event files."""

from __future__ import annotations

import csv
from pathlib import Path

Curves = dict[str, list[tuple[float, float]]]
MOST = 12


def read_curves(folder: str | Path) -> Curves:
    """Return every scalar of the logs at any depth below a folder, as (step, value), the losses first, at most 12.

    Raises:
        ValueError: If there is no such folder, no log in it, or events and no TensorBoard to read them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder with logs")
    curves: Curves = {}
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                step = float(row.pop("step", "") or number)
                for name, value in row.items():
                    if value:
                        curves.setdefault(name, []).append((step, float(value)))
    for path in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError as error:
            raise ValueError(
                f"the events in {path} are read by tensorboard: pip install 'fluxsr[tensorboard]'"
            ) from error
        events = EventAccumulator(str(path), size_guidance={"scalars": 2000})
        events.Reload()
        for name in events.Tags()["scalars"]:
            curves.setdefault(name, []).extend((event.step, event.value) for event in events.Scalars(name))
    curves.pop("epoch", None)
    longer = any(len(points) > 1 for points in curves.values())  # a training of a single step has but points to show
    curves = {name: sorted(points) for name, points in curves.items() if len(points) > 1 or not longer}
    if not curves:
        raise ValueError(f"no metrics.csv and no TensorBoard events with curves in {folder}")
    order = sorted(curves, key=lambda name: (not name.startswith("train/loss"), not name.startswith("val/"), name))
    return {name: curves[name] for name in order[:MOST]}


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a curve as means over stretches, at most 100: the noise of single steps hides the course."""
    length = -(-len(points) // 100)
    stretches = (points[start : start + length] for start in range(0, len(points), length))
    return [(stretch[-1][0], sum(value for _, value in stretch) / len(stretch)) for stretch in stretches]
