"""Counts what a batch did: images, speed and memory."""

from __future__ import annotations

import sys

from fluxsr.inference.one_file import Outcome


class Tally:
    """Counts the outcomes of a batch."""

    def __init__(self) -> None:
        self.done = self.failed = self.pixels = 0
        self.seconds = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in one."""
        if outcome.error:
            self.failed += 1
        elif outcome.target is not None:
            self.done += 1
            self.pixels += outcome.size[0] * outcome.size[1]
            self.seconds += outcome.seconds

    def __add__(self, other: Tally) -> Tally:
        """Return the counts of both, of two processes for example."""
        both = Tally()
        both.done, both.failed = self.done + other.done, self.failed + other.failed
        both.pixels, both.seconds = self.pixels + other.pixels, self.seconds + other.seconds
        return both

    def line(self) -> str:
        """Return what there was, in one line: counts, pixels, speed, and memory where the system reports it."""
        memory = peak_memory()
        return (
            f"{self.done} upscaled, {self.failed} failed; {self.pixels / 1e6:.1f} megapixels in {self.seconds:.1f} s "
            f"({self.pixels / 1e6 / max(self.seconds, 1e-9):.2f} MP/s)"
            + (f", peak memory {memory / 2**30:.2f} GiB" if memory else "")
        )


def peak_memory() -> int:
    """Return the most bytes that this process has held so far; 0 where the system doesn't report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
