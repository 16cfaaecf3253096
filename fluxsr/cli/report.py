"""Runs ``fluxsr report``: it makes one HTML page from evaluations."""

from __future__ import annotations

from fluxsr.cli._support.messages import UsageError
from fluxsr.cli._support.options import Command
from fluxsr.cli._support.values import whole

COMMAND = Command(
    "report",
    ("fluxsr.evaluation.report.page:write_report",),
    what="Write one HTML page of evaluations, with everything inside: tables, plots, pictures, spectra, curves.",
    usage="RUN.json ... --output FILE [options]",
    examples="""
    fluxsr report out.json --output report.html
    fluxsr report ours.json theirs.json --output report.html --logs outputs/fluxsr_nano --images 4
    """,
    positional="runs",
    values={"images": whole},
    shown={"runs": "RUN.json", "output": "FILE", "logs": "DIR", "system": "NAME", "title": "TEXT"},
    hidden=frozenset({"introduction", "stages"}),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    if not options["output"].lower().endswith((".html", ".htm")):
        raise UsageError(f"the name must end in .html, got {options['output']!r}", "--output")
    from fluxsr.evaluation.report import write_report

    print(f"report: {write_report(**options).resolve().as_uri()}")
