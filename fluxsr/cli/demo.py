"""``fluxsr demo``: the whole of FluxSR in a few minutes on any machine, ending in a report."""

from __future__ import annotations

from fluxsr.cli.run import run
from fluxsr.demo import run_demo

EXAMPLES = """
fluxsr demo                                     # about five minutes on two cores
fluxsr demo --minutes 2 --output outputs/short  # fewer pairs and steps
"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    run(run_demo, "demo", arguments, EXAMPLES)
