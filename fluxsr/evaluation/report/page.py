"""Writes the page: one sortable table, for each run plots, pictures, and the protocol, and the curves of a training."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

from fluxsr.evaluation import tables
from fluxsr.evaluation.document import Results, read_results
from fluxsr.evaluation.html import table, write_page
from fluxsr.evaluation.metrics import METRICS, row_of
from fluxsr.evaluation.report import pictures
from fluxsr.evaluation.report.plots import Point, axis, line, scatter

Curves = dict[str, list[tuple[float, float]]]
MOST = 12


@dataclass
class Stage:
    """One stage of what a report is about: its name, how long it took, and what there is to say."""

    name: str
    seconds: float = 0.0
    note: str = ""


def write_report(
    runs: Sequence[str | Path],
    output: str | Path,
    logs: str | Path | None = None,
    images: int = 2,
    system: str | None = None,
    title: str = "fluxsr report",
    introduction: str = "",
    stages: Sequence[Stage] = (),
) -> Path:
    """Write one self-contained HTML page of evaluations.

    Args:
        runs: JSON files that ``fluxsr evaluate`` wrote.
        output: The page, ending in .html.
        logs: Folder with training logs (CSV or TensorBoard), for curves.
        images: Number of the worst, and of the best, images of each run to show.
        system: System to show where a run has several (default: the first that isn't bicubic).
        title: Title of the page.
        introduction: Plain text that stands first.
        stages: Work done before, and its duration; shown as a table.

    Returns:
        Where it was written.

    Raises:
        ValueError: If a run or the logs can't be read, a run is not finished, or nobody is called ``system``.
    """
    read = [read_results(run) for run in runs]
    for run, results in zip(runs, read, strict=True):
        if "comparisons" not in results:
            raise ValueError(f"{run} is of a run that was interrupted: give the same command again, it goes on")
    if system is not None and not any(system in results["systems"] for results in read):
        raise ValueError(f"there is no system {system!r} in any of the runs")
    body = [_notes([introduction])] if introduction else []
    body.append(_overview(read))
    body += [_section(results, images, pictures.focus(results, system)) for results in read]
    if logs is not None:
        curves = (line(smoothed(points), "step", name) for name, points in read_curves(logs).items())
        body.append(f"<h2>Training curves</h2>{_grid(curves)}")
    if stages:
        rows = [*stages, Stage("total", sum(stage.seconds for stage in stages))]
        cells = [[escape(row.name), escape(row.note), f"{row.seconds:.1f} s"] for row in rows]
        body.append(f"<h2>Time</h2>{table(['stage', 'note', 'time'], cells)}")
    write_page(output, title, f"<h1>{escape(title)}</h1>{''.join(body)}", Path(__file__).parent)
    return Path(output)


def _overview(runs: Sequence[Results]) -> str:
    """Return the table of all runs, sortable by every column, published rows among your own."""
    facts = {name: fact for results in runs for name, fact in results["metrics"].items()}
    words = ["benchmark", "system"][len(runs) == 1 :]
    head = [f"<button>{word}</button>" for word in words]
    for metric, fact in facts.items():
        first = "up" if fact["lower_is_better"] else "down"
        head.append(f'<button data-first="{first}">{escape(metric)} {tables.arrow(fact)}</button>')
    body = []
    for results in runs:
        best = _best(results)
        for row in tables.rows(results):
            cells = [f'<span class="{"theirs" if row.published else ""}">{escape(row.name)}</span>']
            cells[:0] = [escape(results["benchmark"]["title"])] * (len(runs) > 1)
            for metric in facts:
                value, _, interval = row.cells.get(metric, "").partition(" ")
                bold = not row.published and best.get(metric) == row.name
                cells.append(
                    (f"<b>{value}</b>" if bold else value) + (f"<small>{interval}</small>" if interval else "")
                )
            body.append(cells)
    text = "Means over the images of each benchmark, below them the 95 % bootstrap interval; the best of one's own in bold, "
    text += "published numbers in gray. A click on a head sorts."
    return _soft(text) + table(head, body, len(words), ' class="sortable"')


def _best(results: Results) -> dict[str, str]:
    """Return the best of several systems by each metric."""
    best = {}
    for metric, facts in results["metrics"].items():
        means = {name: entry["mean"][metric] for name, entry in results["systems"].items()}
        if len(means) > 1:
            best[metric] = (min if facts["lower_is_better"] else max)(means, key=means.__getitem__)
    return best


def _section(results: Results, images: int, system: str) -> str:
    """Return everything on one run."""
    parts = [f"<h2>{escape(results['benchmark']['title'])}</h2>", _soft(f"{tables.caption(results)}.")]
    parts.append(_notes(tables.warnings(results)))
    plots = _scatters(results)
    if plots:
        parts += [
            "<h3>Fidelity and perception</h3>",
            _soft("Better is right and up; rings are published."),
            _grid(plots),
        ]
    shown = [pictures.figure(results, name, kind, system) for name, kind in pictures.chosen(results, system, images)]
    if any(shown):
        parts.append(f"<h3>Worst and best images of {escape(system)}</h3>")
        where = f"The frame is where {system} is furthest from the photo; drag across."
        parts += [_soft(f"By {pictures.judge(results)}. {where}"), f'<div class="pictures">{"".join(shown)}</div>']
    else:
        parts.append(_soft("No pictures: they are not where they were, or were not kept (--save_images)."))
    for one in tables.further(results):
        rows = table(one.head, [[escape(cell) for cell in row] for row in one.rows])
        fold = f"<details{' open' * (len(one.rows) < 10)}><summary>{len(one.rows)} rows</summary>{rows}</details>"
        parts += [f"<h3>{one.title}</h3>", fold, _soft(one.remark)]
    return "".join([*parts, _protocol(results)])


def _scatters(results: Results) -> list[str]:
    """Return a plot of each perceptual metric against the first fidelity metric."""
    facts, systems = results["metrics"], results["systems"]
    placed, rows = tables.published_columns(results), tables.published_rows(results)
    across = next((name for name, row in METRICS.items() if row.family == "fidelity" and name in facts), "")
    looks = [name for name in facts if row_of(name).family == "perception" and name != "fid"]
    plots = []
    for up in looks if across else ():
        points = [
            Point(name, entry["mean"][across], entry["mean"][up], number)
            for number, (name, entry) in enumerate(systems.items())
        ]
        points += [
            Point(f"{row.method}-{row.steps}", row.values[placed[across]], row.values[placed[up]], None)
            for row in rows
            if {placed.get(across), placed.get(up)} <= row.values.keys()
        ]
        points = [one for one in points if isfinite(one.x) and isfinite(one.y)]  # equal images have infinite PSNR
        if points:
            axes = [
                axis(
                    f"{name} {tables.arrow(facts[name])}",
                    [getattr(one, place) for one in points],
                    facts[name]["lower_is_better"],
                )
                for place, name in (("x", across), ("y", up))
            ]
            plots.append(scatter(points, *axes))
    return plots


def _protocol(results: Results) -> str:
    """Return protocol and versions, folded away."""
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    facts = {**results["protocol"], "measured": results["created"], "versions": versions}
    if results["benchmark"].get("sha256"):
        facts["sha256 of the files"] = results["benchmark"]["sha256"]
    for name, entry in results["systems"].items():
        facts[name] = entry["source"] + (f", matched by {entry['matched_by']}" if entry["matched_by"] else "")
    items = (f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    return f"<details><summary>Protocol and versions</summary><dl>{''.join(items)}</dl></details>"


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _notes(texts: Sequence[str]) -> str:
    return f'<div class="notes">{"".join(f"<p>{escape(text)}</p>" for text in texts)}</div>' if texts else ""


def _grid(plots: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(f"<figure>{plot}</figure>" for plot in plots)}</div>'


def read_curves(folder: str | Path) -> Curves:
    """Return every scalar of the logs at any depth below a folder, as (step, value), the losses first, at most 12."""
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
