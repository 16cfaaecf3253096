"""Runs ``fluxsr demo``: the whole of FluxSR in a few minutes on any machine, ending in a report."""

from __future__ import annotations

from fluxsr.cli._support.command import Command

COMMAND = Command(
    "demo",
    ("fluxsr.demo:run_demo",),
    examples="""
    fluxsr demo                                     # about five minutes on two cores
    fluxsr demo --minutes 2 --output outputs/short  # fewer pairs and steps
    fluxsr demo --minutes 60 --output outputs/hour  # twelve times as many
    """,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    COMMAND.run(arguments)
