"""Writes the page: one sortable table, and for each run plots, pictures, spectra, and the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

from fluxsr.atomic import write_text
from fluxsr.evaluation import tables
from fluxsr.evaluation.document import Results, read_results
from fluxsr.evaluation.metrics import METRICS, row_of
from fluxsr.evaluation.published import published_efficiency
from fluxsr.evaluation.report import pictures
from fluxsr.evaluation.report.curves import Curves, read_curves
from fluxsr.evaluation.report.plots import Axis, Point, axis, legend, lines, scatter
from fluxsr.evaluation.report.spectra import relative_spectra

_FOLDER = Path(__file__).parent


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
    body = [f'<div class="notes"><p>{escape(introduction)}</p></div>'] if introduction else []
    body.append(overview(read))
    for number, results in enumerate(read):
        known = system if system is not None and (len(read) == 1 or system in results["systems"]) else None
        body.append(section(results, number, images, pictures.focus(results, known)))
    if system is not None and not any(system in results["systems"] for results in read):
        raise ValueError(f"there is no system {system!r} in any of the runs")
    if logs is not None:
        body.append(f"<h2>Training curves</h2><div class=grid>{training(read_curves(logs))}</div>")
    body += [times(stages)] if stages else []
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    text = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{style}</style></head>
<body><h1>{escape(title)}</h1>{"".join(body)}<script>{script}</script></body></html>
"""
    write_text(output, text)
    return Path(output)


def colors(results: Results) -> dict[str, int]:
    """Return the palette's number of each system."""
    return {name: number for number, name in enumerate(results["systems"])}


def overview(runs: Sequence[Results]) -> str:
    """Return the table of all runs, sortable by every column, published rows among your own."""
    facts: dict[str, dict[str, Any]] = {}
    for results in runs:
        facts |= results["metrics"]
    several = len(runs) > 1
    heads = [("benchmark", "text", "")] * several + [("system", "text", "")]
    heads += [
        (f"{name} {tables.arrow(fact)}", "", "up" if fact["lower_is_better"] else "down")
        for name, fact in facts.items()
    ]
    head = "".join(
        f'<th class="{kind}" scope="col" data-first="{first}"><button>{escape(name)}</button></th>'
        for name, kind, first in heads
    )
    body = "".join(_rows(results, list(facts), several) for results in runs)
    return (
        f'<p class="soft">Means over the images of each benchmark, below them the 95 % bootstrap interval; the best of one\'s '
        f"own in bold, published numbers in gray. A click on a head sorts.</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _rows(results: Results, metrics: Sequence[str], several: bool) -> str:
    best = {}
    for metric, facts in results["metrics"].items():
        means = {name: entry["mean"][metric] for name, entry in results["systems"].items()}
        pick = min if facts["lower_is_better"] else max
        best[metric] = pick(means, key=means.__getitem__) if len(means) > 1 else None
    lines_ = []
    for row in tables.rows(results):
        cells = [_text_cell(results["benchmark"]["title"])] * several + [_text_cell(row.name)]
        for metric in metrics:
            value, _, interval = row.cells.get(metric, "").partition(" ")
            small = f"<small>{escape(interval)}</small>" if interval else ""
            mark = ' class="best"' if not row.published and best.get(metric) == row.name else ""
            number = "Infinity" if value == "inf" else value  # as the page's script reads it
            cells.append(f'<td{mark} data-value="{number}">{value}{small}</td>')
        lines_.append(f"<tr{' class=published' if row.published else ''}>{''.join(cells)}</tr>")
    return "".join(lines_)


def _text_cell(text: str) -> str:
    return f'<td class="text" data-value="{escape(text)}">{escape(text)}</td>'


def section(results: Results, number: int, images: int, system: str) -> str:
    """Return everything on one run."""
    parts = [f'<h2 id="run{number}">{escape(results["benchmark"]["title"])}</h2>']
    parts.append(f'<p class="soft">{escape(tables.caption(results))}.</p>')
    warnings = tables.warnings(results)
    if warnings:
        parts.append(f'<div class="notes">{"".join(f"<p>{escape(warning)}</p>" for warning in warnings)}</div>')
    plots = scatters(results)
    if plots:
        parts.append(
            f"<h3>Fidelity and perception</h3><p class=soft>Better is right and up; rings are published.</p>{plots}"
        )
    shown = [pictures.figure(results, name, kind, system) for name, kind in pictures.chosen(results, system, images)]
    if any(shown):
        metric = pictures.judge(results)
        parts.append(f"<h3>Worst and best images of {escape(system)}</h3>")
        parts.append(
            f'<p class="soft">By {metric}. The frame is where {escape(system)} is furthest from the photo; drag across.</p>'
        )
        parts.append(f'<div class="pictures">{"".join(shown)}</div>')
    else:
        parts.append('<p class="soft">No pictures: they are not where they were, or were not kept (--save_images).</p>')
    parts += [spectra(results), differences(results), cost(results), protocol(results)]
    return "".join(parts)


def scatters(results: Results) -> str:
    """Return a plot of each perceptual metric against the first fidelity metric."""
    fidelity = next(
        (name for name in METRICS if row_of(name).family == "fidelity" and name in results["metrics"]), None
    )
    if fidelity is None:
        return ""
    rows, placed = tables.published(results)
    plots = []
    for metric in (
        name for name in results["metrics"] if row_of(name).family == "perception" and not row_of(name).on_sets
    ):
        points = [
            Point(name, entry["mean"][fidelity], entry["mean"][metric], colors(results)[name])
            for name, entry in results["systems"].items()
        ]
        if fidelity in placed and metric in placed:
            across, up = placed[fidelity], placed[metric]
            points += [
                Point(f"{row.method}-{row.steps}", row.values[across], row.values[up], None)
                for row in rows
                if across in row.values and up in row.values
            ]
        points = [
            point for point in points if isfinite(point.x) and isfinite(point.y)
        ]  # equal images have infinite PSNR
        if points:
            x_axis = _axis(results, fidelity, [point.x for point in points])
            y_axis = _axis(results, metric, [point.y for point in points])
            plots.append(f"<figure>{scatter(points, x_axis, y_axis)}</figure>")
    return f'<div class="grid">{"".join(plots)}</div>' if plots else ""


def _axis(results: Results, metric: str, values: Sequence[float]) -> Axis:
    facts = results["metrics"][metric]
    return axis(f"{metric} {tables.arrow(facts)}", values, facts["lower_is_better"])


def spectra(results: Results) -> str:
    """Return the spectra, with the artefact meter's period and its harmonics marked."""
    found = relative_spectra(results)
    if not found:
        return ""
    period = results["protocol"]["artefact_period"]
    marks = {k / period: f"{period} px" if k == 1 else "" for k in range(1, period // 2 + 1)}
    over = "dB over the photos" if any(item["hr"] for item in results["images"].values()) else "dB"
    plot = lines(found, "cycles per pixel", over, colors(results), marks)
    text = f"A grid of {period} pixels would stand out as peaks at the dashed lines."
    return f'<h3>Spectra</h3><p class="soft">{text}</p>{legend({n: colors(results)[n] for n in found})}<figure>{plot}</figure>'


def differences(results: Results) -> str:
    """Return the paired comparisons."""
    body = "".join(
        f'<tr><td class="text">{escape(metric)}</td><td class="text">{escape(pair)}</td><td>{difference}</td><td>{p}</td></tr>'
        for metric, pair, difference, p in tables.difference_rows(results)
    )
    if not body:
        return ""
    head = (
        '<tr><th class="text">metric</th><th class="text">systems</th><th>difference, 95 % interval</th><th>p</th></tr>'
    )
    table = f'<div class="scroll"><table>{head}{body}</table></div>'
    count = len(results["comparisons"])
    return f"<h3>Differences, image by image</h3><details><summary>{count} paired tests</summary>{table}</details>"


def cost(results: Results) -> str:
    """Return what the models cost, and the published times below."""
    own = list(tables.cost_rows(results))
    if not own:
        return ""
    body = "".join(
        f'<tr><td class="text">{escape(name)}</td><td class="text">{escape(stage)}</td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, stage, *cells in own
    )
    head = "".join(f"<th{' class=text' * (n < 2)}>{escape(title)}</th>" for n, title in enumerate(tables.COST_HEAD))
    counted = tables.macs_of(results)
    of = f" MACs (multiply-accumulates, G is 10^9) of an LR image of {counted} pixels." if counted else ""
    machine = results["machine"]
    theirs = ", ".join(f"{row['method']} {row['seconds']} s" for row in published_efficiency())
    return (
        f'<h3>Cost</h3><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
        f'<p class="soft">Measured on {escape(str(machine["device"]))}, {machine["threads"]} threads.{of} '
        f"Printed by FlowSR for 128 to 512 pixels, on another machine: {escape(theirs)}.</p>"
    )


def protocol(results: Results) -> str:
    """Return protocol and versions, folded away."""
    facts = {**results["protocol"], "measured": results["created"], "versions": _joined(results["versions"])}
    if results["benchmark"].get("sha256"):
        facts["sha256 of the files"] = results["benchmark"]["sha256"]
    for name, entry in results["systems"].items():
        facts[name] = entry["source"] + (f", matched by {entry['matched_by']}" if entry["matched_by"] else "")
    items = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()
    )
    return f"<details><summary>Protocol and versions</summary><dl>{items}</dl></details>"


def times(stages: Sequence[Stage]) -> str:
    """Return a table of what took how long, with the sum."""
    rows = [*stages, Stage("total", sum(stage.seconds for stage in stages))]
    body = "".join(
        f'<tr><td class="text">{escape(row.name)}</td><td>{row.seconds:.1f} s</td><td class="text">{escape(row.note)}</td></tr>'
        for row in rows
    )
    return f'<h2>Time</h2><div class="scroll"><table>{body}</table></div>'


def training(curves: Curves) -> str:
    """Return one small plot per curve."""
    return "".join(f"<figure>{lines({name: points}, 'step', name)}</figure>" for name, points in curves.items())


def _joined(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
