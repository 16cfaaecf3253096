"""``fluxsr pairs``: make teacher pairs, resumable after any interruption."""

from __future__ import annotations

from fluxsr.cli._support.made import tell_pairs
from fluxsr.cli._support.options import Command
from fluxsr.progress import progress_of

COMMAND = Command(
    "pairs",
    ("fluxsr.training.pair_maker:make_pairs",),
    examples="""
    fluxsr pairs --output pairs --num 128                                # of the shipped nano teacher: half a minute, no GPU
    fluxsr pairs --output pairs --num 2400 --steps 28 --guidance 3.5 --model black-forest-labs/FLUX.1-dev \\
      --prompt prompt.safetensors --dtype bfloat16 --batch_size 4        # as the paper's
    fluxsr pairs --output pairs --images PHOTOS                          # of your own photos
    """,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    with progress_of("teacher pairs") as report:
        tell_pairs(COMMAND.run(arguments, progress=report))
