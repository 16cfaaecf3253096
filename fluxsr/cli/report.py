"""``fluxsr report``: one HTML page from evaluations."""

from __future__ import annotations

import argparse

from fluxsr.cli.main import fail
from fluxsr.cli.run import argument_parser


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    if not options.output.lower().endswith((".html", ".htm")):
        fail(f"--output {options.output}: the name must end in .html")
    if options.images < 0:
        fail(f"--images must be 0 or more, got {options.images}")
    from fluxsr.evaluation.report import write_report

    path = write_report(
        options.runs, options.output, options.logs, options.images, options.system, options.title or "fluxsr report"
    )
    print(f"report: {path.resolve().as_uri()}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argument_parser(
        "report",
        "Write one HTML page of evaluations, with everything inside: tables, plots, pictures, spectra, curves.",
        "RUN.json ... --output FILE [options]",
        """
        fluxsr report out.json --output report.html
        fluxsr report ours.json theirs.json --output report.html --logs outputs/fluxsr_nano --images 4
        """,
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN.json", help="what fluxsr evaluate wrote")
    add("--output", required=True, metavar="FILE", help="the page, ending in .html")
    add("--logs", metavar="DIR", help="training logs (CSV or TensorBoard), for curves")
    add("--images", type=int, default=2, metavar="N", help="worst and best images shown of each run (default: 2)")
    add(
        "--system",
        metavar="NAME",
        help="the one that is shown where a run has several (default: the first that isn't bicubic)",
    )
    add("--title", metavar="TEXT", help="of the page (default: fluxsr report)")
    return parser
