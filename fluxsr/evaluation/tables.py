"""Prints the results as tables: Markdown, CSV, and on the terminal, with the papers' rows below your own.

The papers' tables are as they printed them; what keeps them from being compared with your own numbers is stated.
"""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple

from fluxsr.evaluation.benchmarks import BENCHMARKS, read_table
from fluxsr.evaluation.document import Results
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
        dataset: Name of the dataset, as in ``published_results.csv``.
        setting: ``full`` images or ``crop``.
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


class Table(NamedTuple):
    """A table beside the means: its title, its cells, of which the first two of a row are words, and a remark."""

    title: str
    head: list[str]
    rows: list[list[str]]
    remark: str


class Row(NamedTuple):
    """One row: who, and the cells by metric; ``published`` says whose numbers they are."""

    name: str
    cells: dict[str, str]
    published: bool


def rows(results: Results) -> list[Row]:
    """Return the means with their intervals, and below them the published rows of the same benchmark and setting."""
    decimals = {metric: facts["decimals"] for metric, facts in results["metrics"].items()}
    found = []
    for name, entry in results["systems"].items():
        cells = {metric: f"{value:.{decimals[metric]}f}" for metric, value in entry["mean"].items()}
        for metric, (low, high) in entry["interval"].items():
            cells[metric] += f" [{low:.{decimals[metric]}f}, {high:.{decimals[metric]}f}]"
        found.append(Row(name, cells, False))
    placed = published_columns(results)
    for row in published_rows(results):
        columns = {metric: column for metric, column in placed.items() if column in row.values}
        cells = {metric: f"{row.values[column]:.{decimals[metric]}f}" for metric, column in columns.items()}
        if cells:
            found.append(Row(f"{row.method}, {row.steps} step{'s' * (row.steps > 1)} ({row.source})", cells, True))
    return found


def published_rows(results: Results) -> list[PublishedRow]:
    """Return the published rows of a run's benchmark and setting."""
    key = results["benchmark"]["published"]
    return published_results(*key) if key else []


def published_columns(results: Results) -> dict[str, str]:
    """Return which column of those rows belongs to which metric of the run: to the nearest."""
    there = {column for row in published_rows(results) for column in row.values}
    found = {}
    for column in filter(there.__contains__, COLUMNS):
        match = next((name for name in metrics_of_column(column) if name in results["metrics"]), None)
        if match is not None:
            found[match] = column
    return found


def warnings(results: Results) -> list[str]:
    """Return what a reader should know before comparing."""
    benchmark, title = results["benchmark"], results["benchmark"]["title"]
    found = []
    if "original" in benchmark and not benchmark["original"]:
        found.append(
            f"no checksum of {title} is known to us: we can't tell whether the files are the original ones"
            if benchmark["original"] is None
            else f"the files are not those that we know as {title}: their checksum differs"
        )
    if benchmark.get("expected_images") not in (None, benchmark["images"]):
        found.append(f"{title} has {benchmark['expected_images']} images, these are {benchmark['images']}")
    for metric, facts in results["metrics"].items():
        row = row_of(metric)  # files of earlier versions don't say who measured
        if facts.get("source", "pyiqa" if row.load is None and not row.on_sets else "") == "pyiqa":
            found.append(f"{metric} was measured by pyiqa, whose license is non-commercial")
    return found + (_differences(results) if benchmark["published"] else [])


def _differences(results: Results) -> list[str]:
    """Return what keeps the published rows of a benchmark from being compared with your own run."""
    metrics, protocol, images = results["metrics"], results["protocol"], results["benchmark"]["images"]
    dataset, setting = results["benchmark"]["published"]
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
    columns = {column for row in published_rows(results) for column in row.values}
    for name in metrics:
        row = row_of(name)
        nearest = next(iter(metrics_of_column(row.column)), name)
        if row.note and row.column in columns and (nearest == name or nearest not in metrics):
            said.append(row.note)
    return list(dict.fromkeys(said))


def caption(results: Results) -> str:
    """Return one sentence on what was measured how."""
    benchmark, protocol = results["benchmark"], results["protocol"]
    scale = f"x{protocol['scale']}, " if protocol["scale"] else ""
    setting = f", {SETTINGS[benchmark['published'][1]]}" if benchmark["published"] else ""
    lr = {"files": "LR from files", "none": "no LR"}.get(protocol["lr"], f"LR made here: {protocol['lr']}")
    measured = ""
    if any(name.startswith(("psnr", "ssim")) for name in results["metrics"]):
        measured = f", PSNR and SSIM on the BT.601 luma, {protocol['crop']} pixels cut off each side"
    return f"{benchmark['title']}{setting}: {benchmark['images']} images, {scale}{lr}{measured}"


def to_markdown(results: Results) -> str:
    """Return means, differences, cost and versions as Markdown."""
    metrics = results["metrics"]
    lines = [f"# {results['benchmark']['title']}", "", caption(results) + ".", ""]
    lines += _markdown_table(
        ["system", *(f"{name} {arrow(facts)}" for name, facts in metrics.items())],
        [[row.name, *(row.cells.get(metric, "") for metric in metrics)] for row in rows(results)],
    )
    lines += ["", "In brackets the 95 % bootstrap interval of the mean over images."]
    lines += [f"Note: {warning}." for warning in warnings(results)]
    for table in further(results):
        lines += ["", f"## {table.title}", "", *_markdown_table(table.head, table.rows)]
        lines += ["", table.remark] if table.remark else []
    lines += ["", "## Versions", "", ", ".join(f"{name} {number}" for name, number in results["versions"].items()), ""]
    return "\n".join(lines)


def to_csv(results: Results) -> str:
    """Return the values of every image as CSV: system, image, then a column per metric; the rows ``mean`` come last."""
    buffer = io.StringIO()
    for key in ("protocol", "versions"):
        buffer.write("# " + key + ": " + ", ".join(f"{name}={value}" for name, value in results[key].items()) + "\n")
    writer = csv.DictWriter(buffer, ["system", "image", *results["metrics"]], lineterminator="\n")
    writer.writeheader()
    for name, entry in results["systems"].items():
        writer.writerows({"system": name, "image": image, **values} for image, values in entry["images"].items())
    writer.writerows({"system": n, "image": "mean", **entry["mean"]} for n, entry in results["systems"].items())
    return buffer.getvalue()


def print_table(results: Results) -> None:
    """Print the table of means, the differences' p-values, and the warnings."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    metrics = results["metrics"]
    table = Table("system", title=escape(caption(results)), box=box.SIMPLE, title_justify="left")
    for name, facts in metrics.items():
        table.add_column(f"{name} {arrow(facts)}", justify="right")
    for row in rows(results):
        # The intervals are in the files: a terminal is narrow.
        cells = [row.cells.get(metric, "").partition(" ")[0] for metric in metrics]
        table.add_row(escape(row.name), *cells, style="dim" if row.published else None)
    for column in table.columns:
        column.no_wrap = True
    console = Console(highlight=False)
    console.width = max(console.width, 24 + 14 * len(metrics))  # rather wrapped by the terminal than cut off
    console.print(table)
    for metric, pair, difference, p in difference_rows(results):
        console.print(f"  {metric}: {pair} {difference}, p = {p}", markup=False)
    for warning in warnings(results):
        console.print(f"note: {warning}", style="yellow", markup=False)


def arrow(facts: dict[str, Any]) -> str:
    """Return which way a metric points."""
    return "↓" if facts["lower_is_better"] else "↑"


def further(results: Results) -> list[Table]:
    """Return the paired differences, and what the models cost, as far as there are such."""
    head = ["metric", "second less first", "difference, 95 % interval", "p"]
    found = [Table("Differences, image by image", head, difference_rows(results), "")]
    machine, entries = results["machine"], results["systems"].values()
    sizes = {tuple(entry["macs"]["of"]) for entry in entries if (entry.get("macs") or {}).get("stages")}
    remark = f"Measured on {machine['device']}, {machine['threads']} threads."
    if sizes:
        counted = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        remark += f" MACs are those of an LR image of {counted} pixels (multiply-accumulates, G is 10^9)."
    theirs = ", ".join(f"{row['method']} {row['seconds']} s" for row in published_efficiency())
    remark += f" Printed by FlowSR for 128 to 512 pixels, on another machine: {theirs}."
    head = ["system", "stage", "seconds, median", "peak memory, MB", "MACs, G", "parameters, M"]
    found.append(Table("Cost", head, cost_rows(results), remark))
    return [table for table in found if table.rows]


def cost_rows(results: Results) -> list[list[str]]:
    """Return system, stage, seconds, memory, MACs (of the first image that was measured) and parameters."""
    found = []
    for name, entry in results["systems"].items():
        cost = entry.get("cost_summary", {"median_seconds": {}})
        macs = (entry.get("macs") or {}).get("stages") or {}
        for stage, seconds in cost["median_seconds"].items():
            peak, count = cost["peak_bytes"].get(stage), macs.get(stage)
            parameters = entry.get("parameters") if stage == "total" else None
            cells = [f"{seconds:.3g}", f"{peak / 2**20:.0f}" if peak else ""]
            cells += [f"{count / 1e9:.3g}" if count else "", f"{parameters / 1e6:.4g}" if parameters else ""]
            found.append([name, stage, *cells])
    return found


def difference_rows(results: Results) -> list[list[str]]:
    """Return metric, pair of systems, mean difference with its interval, and p-value."""
    found = []
    for row in results["comparisons"]:
        decimals = results["metrics"][row["metric"]]["decimals"]
        low, high = row["interval"]
        difference = f"{row['difference']:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"
        found.append([row["metric"], f"{row['second']} - {row['first']}", difference, f"{row['p_value']:.2g}"])
    return found


def _markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, body)]
