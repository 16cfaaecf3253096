"""Runs ``fluxsr ablation``: a grid of training runs, one after the other, each resumable, for one table."""

from __future__ import annotations

from fluxsr.cli._support.command import Command
from fluxsr.cli._support.signatures import commas

COMMAND = Command(
    "ablation",
    ("fluxsr.evaluation.ablation:run_ablation",),
    examples="""
    fluxsr ablation --grid ablation_nano --output outputs/ablation --photos PHOTOS --hr HELD_OUT_PHOTOS
    """,
    values={"metrics": commas},
    shown={"metrics": "A,B,..."},
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    from fluxsr.progress import progress_of

    with progress_of("measuring") as report:
        results = COMMAND.run(arguments, say=lambda line: print(line, flush=True), progress=report)
    if results is not None:
        from fluxsr.evaluation.tables import print_table

        print_table(results)
