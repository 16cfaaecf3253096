"""``fluxsr pairs``: make teacher pairs, resumable after any interruption."""

from __future__ import annotations

from fluxsr.cli.run import run
from fluxsr.progress import progress_of
from fluxsr.training.pair_maker import MadePairs, make_pairs

EXAMPLES = """
fluxsr pairs --output pairs --num 128                                # of the shipped nano teacher: half a minute, no GPU
fluxsr pairs --output pairs --num 2400 --steps 28 --guidance 3.5 --model black-forest-labs/FLUX.1-dev \\
  --prompt prompt.safetensors --dtype bfloat16 --batch_size 4        # as the paper's
fluxsr pairs --output pairs --images PHOTOS                          # of your own photos
"""

# Rms error of latents after inversion and back, above which the user is told: half of their own deviation.
POOR_ROUND_TRIP = 0.5


def main(arguments: list[str]) -> None:
    """Run the command."""
    with progress_of("teacher pairs") as report:
        tell(run(make_pairs, "pairs", arguments, EXAMPLES, progress=report))


def tell(made: MadePairs) -> None:
    """Print what was made."""
    before = f", {made.done_before} of them done before" if made.done_before else ""
    print(f"{made.num} pairs of {made.size}x{made.size} in {made.folder}{before}")
    if len(made.round_trip):
        error = made.round_trip.mean()
        print(f"inversion and back: rms error of the latents {error:.4f}, worst {made.round_trip.max():.4f}")
        if error > POOR_ROUND_TRIP:
            print(f"that is much, where the latents' deviation is about 1: make them with more steps than {made.steps}")
