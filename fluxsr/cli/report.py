"""Runs ``fluxsr report``: it makes one HTML page from evaluations."""

from __future__ import annotations

from fluxsr.cli._support.command import Command

COMMAND = Command(
    "report",
    ("fluxsr.evaluation.report.page:write_report",),
    examples="""
    fluxsr report out.json --output report.html
    fluxsr report ours.json theirs.json --output report.html --logs outputs/fluxsr_nano --images 4
    """,
    positional="runs",
    shown={"runs": "RUN.json", "output": "FILE", "logs": "DIR", "system": "NAME", "title": "TEXT"},
    hidden=frozenset({"introduction", "stages"}),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    if not options["output"].lower().endswith((".html", ".htm")):
        raise ValueError(f"--output: the name must end in .html, got {options['output']!r}")
    if options["images"] < 0:
        raise ValueError(f"--images must be 0 or more, got {options['images']}")
    from fluxsr.evaluation.report import write_report

    print(f"report: {write_report(**options).resolve().as_uri()}")
