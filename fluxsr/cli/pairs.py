"""Runs ``fluxsr pairs``: it makes teacher pairs, resumable after any interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxsr.cli._support.command import Command

if TYPE_CHECKING:
    from fluxsr.training.pair_maker import MadePairs

# Rms error of latents after inversion and back, above which the user is told: half of their own deviation.
POOR_ROUND_TRIP = 0.5

COMMAND = Command(
    "pairs",
    ("fluxsr.training.pair_maker:make_pairs", "fluxsr.processes:launch"),
    examples="""
    fluxsr pairs --output pairs --num 128                                # by the shipped nano teacher: half a minute, no GPU
    fluxsr pairs --output pairs --num 2400 --steps 28 --guidance 3.5 --model black-forest-labs/FLUX.1-dev \\
      --prompt prompt.safetensors --dtype bfloat16 --batch_size 4        # the paper's number
    fluxsr pairs --output pairs --num 2400 --steps 50 --cfg 4.0 --model black-forest-labs/FLUX.2-klein-base-4B \\
      --prompt prompt.safetensors --dtype bfloat16                       # with classifier-free guidance
    fluxsr pairs --output pairs --num 2400 --steps 28 --devices auto     # on every GPU of this machine
    fluxsr pairs --output pairs --images PHOTOS                          # of your own photos
    """,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    from fluxsr.processes import launch
    from fluxsr.progress import progress_of

    with launch(options.pop("devices"), options["device"]) as processes:
        from fluxsr.training.pair_maker import make_pairs

        with progress_of("teacher pairs") as report:
            made = make_pairs(**options, progress=report if processes.first else None, processes=processes)
        if processes.first:
            tell_pairs(made)


def tell_pairs(made: MadePairs) -> None:
    """Print what was made."""
    before = f", {made.done_before} of them done before" if made.done_before else ""
    print(f"{made.num} pairs of {made.size}x{made.size} in {made.folder}{before}")
    if len(made.round_trip):
        error = made.round_trip.mean()
        print(f"inversion and back: rms error of the latents {error:.4f}, worst {made.round_trip.max():.4f}")
        if error > POOR_ROUND_TRIP:
            print(f"that is much, where the latents' deviation is about 1: make them with more steps than {made.steps}")
