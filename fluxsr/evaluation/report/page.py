"""Writes the page: one sortable table, and for each run plots, pictures, spectra, and the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

from fluxsr.evaluation import tables
from fluxsr.evaluation.document import Results, read_results
from fluxsr.evaluation.html import write_page
from fluxsr.evaluation.metrics import METRICS, row_of
from fluxsr.evaluation.report import pictures
from fluxsr.evaluation.report.curves import read_curves, smoothed
from fluxsr.evaluation.report.plots import Axis, Point, axis, legend, lines, scatter
from fluxsr.evaluation.report.spectra import relative_spectra


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
    body = [f'<div class="notes"><p>{escape(introduction)}</p></div>'] if introduction else []
    body.append(_overview(read))
    body += [_section(results, images, pictures.focus(results, system)) for results in read]
    if logs is not None:
        curves = (lines({name: smoothed(points)}, "step", name) for name, points in read_curves(logs).items())
        body.append(f"<h2>Training curves</h2>{_grid(curves)}")
    if stages:
        rows = [*stages, Stage("total", sum(stage.seconds for stage in stages))]
        cells = [[row.name, row.note, f"{row.seconds:.1f} s"] for row in rows]
        body.append(f"<h2>Time</h2>{_table(['stage', 'note', 'time'], cells)}")
    write_page(output, title, f"<h1>{escape(title)}</h1>{''.join(body)}", Path(__file__).parent)
    return Path(output)


def _overview(runs: Sequence[Results]) -> str:
    """Return the table of all runs, sortable by every column, published rows among your own."""
    facts = {name: fact for results in runs for name, fact in results["metrics"].items()}
    heads = [(name, "text", "") for name in ("benchmark", "system")[len(runs) == 1 :]]
    heads += [
        (f"{name} {tables.arrow(fact)}", "", "up" if fact["lower_is_better"] else "down")
        for name, fact in facts.items()
    ]
    head = "".join(
        f'<th class="{kind}" scope="col" data-first="{first}"><button>{escape(name)}</button></th>'
        for name, kind, first in heads
    )
    body = []
    for results in runs:
        best = _best(results)
        for row in tables.rows(results):
            names = [results["benchmark"]["title"], row.name][len(runs) == 1 :]
            cells = [f'<td class="text" data-value="{escape(text)}">{escape(text)}</td>' for text in names]
            for metric in facts:
                value, _, interval = row.cells.get(metric, "").partition(" ")
                small = f"<small>{escape(interval)}</small>" if interval else ""
                mark = ' class="best"' if not row.published and best.get(metric) == row.name else ""
                number = "Infinity" if value == "inf" else value  # as the page's script reads it
                cells.append(f'<td{mark} data-value="{number}">{value}{small}</td>')
            body.append(f"<tr{' class=published' if row.published else ''}>{''.join(cells)}</tr>")
    return (
        f'<p class="soft">Means over the images of each benchmark, below them the 95 % bootstrap interval; the best of one\'s '
        f"own in bold, published numbers in gray. A click on a head sorts.</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        "</div>"
    )


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
    parts = [
        f"<h2>{escape(results['benchmark']['title'])}</h2>",
        f'<p class="soft">{escape(tables.caption(results))}.</p>',
    ]
    warnings = tables.warnings(results)
    if warnings:
        parts.append(f'<div class="notes">{"".join(f"<p>{escape(warning)}</p>" for warning in warnings)}</div>')
    plots = _scatters(results)
    if plots:
        text = "Better is right and up; rings are published."
        parts.append(f'<h3>Fidelity and perception</h3><p class="soft">{text}</p>{_grid(plots)}')
    shown = [pictures.figure(results, name, kind, system) for name, kind in pictures.chosen(results, system, images)]
    if any(shown):
        text = f"The frame is where {escape(system)} is furthest from the photo; drag across."
        parts.append(f"<h3>Worst and best images of {escape(system)}</h3>")
        parts.append(f'<p class="soft">By {escape(str(pictures.judge(results)))}. {text}</p>')
        parts.append(f'<div class="pictures">{"".join(shown)}</div>')
    else:
        parts.append('<p class="soft">No pictures: they are not where they were, or were not kept (--save_images).</p>')
    parts.append(_spectra(results))
    for table in tables.further(results):
        fold = f"<details{' open' * (len(table.rows) < 10)}><summary>{len(table.rows)} rows</summary>"
        parts.append(f"<h3>{table.title}</h3>{fold}{_table(table.head, table.rows)}</details>")
        parts.append(f'<p class="soft">{escape(table.remark)}</p>')
    return "".join([*parts, _protocol(results)])


def _scatters(results: Results) -> list[str]:
    """Return a plot of each perceptual metric against the first fidelity metric."""
    facts, plots = results["metrics"], []
    fidelity = next((name for name, row in METRICS.items() if row.family == "fidelity" and name in facts), None)
    looks = [name for name in facts if row_of(name).family == "perception" and name != "fid"]
    rows, placed = tables.published(results)
    for metric in looks if fidelity is not None else ():
        points = [
            Point(name, entry["mean"][fidelity], entry["mean"][metric], number)
            for number, (name, entry) in enumerate(results["systems"].items())
        ]
        across, up = placed.get(str(fidelity)), placed.get(metric)
        points += [
            Point(f"{row.method}-{row.steps}", row.values[across], row.values[up], None)
            for row in rows
            if across in row.values and up in row.values
        ]
        points = [one for one in points if isfinite(one.x) and isfinite(one.y)]  # equal images have infinite PSNR
        if points:
            x_axis = _axis(results, str(fidelity), [one.x for one in points])
            plots.append(scatter(points, x_axis, _axis(results, metric, [one.y for one in points])))
    return plots


def _axis(results: Results, metric: str, values: Sequence[float]) -> Axis:
    facts = results["metrics"][metric]
    return axis(f"{metric} {tables.arrow(facts)}", values, facts["lower_is_better"])


def _spectra(results: Results) -> str:
    """Return the spectra, with the artefact meter's period and its harmonics marked."""
    found = relative_spectra(results)
    if not found:
        return ""
    period = results["protocol"]["artefact_period"]
    marks = {k / period: f"{period} px" if k == 1 else "" for k in range(1, period // 2 + 1)}
    over = "dB over the photos" if any(item["hr"] for item in results["images"].values()) else "dB"
    colors = {name: number for number, name in enumerate(results["systems"]) if name in found}
    plot = lines(found, "cycles per pixel", over, colors, marks)
    text = f"A grid of {period} pixels would stand out as peaks at the dashed lines."
    return f'<h3>Spectra</h3><p class="soft">{text}</p>{legend(colors)}<figure>{plot}</figure>'


def _protocol(results: Results) -> str:
    """Return protocol and versions, folded away."""
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    facts = {**results["protocol"], "measured": results["created"], "versions": versions}
    if results["benchmark"].get("sha256"):
        facts["sha256 of the files"] = results["benchmark"]["sha256"]
    for name, entry in results["systems"].items():
        facts[name] = entry["source"] + (f", matched by {entry['matched_by']}" if entry["matched_by"] else "")
    items = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()
    )
    return f"<details><summary>Protocol and versions</summary><dl>{items}</dl></details>"


def _grid(plots: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(f"<figure>{plot}</figure>" for plot in plots)}</div>'


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a table whose first two columns hold words."""

    def line(cells: Sequence[str], tag: str) -> str:
        looks = ' class="text"', ' class="text"', *[""] * len(cells)
        return "".join(f"<{tag}{look}>{escape(cell)}</{tag}>" for look, cell in zip(looks, cells, strict=False))

    rows = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in body)
    return f'<div class="scroll"><table><tr>{line(head, "th")}</tr>{rows}</table></div>'
