"""Checks numbers that would be wrong for every picture, before work begins."""

from __future__ import annotations


def check_numbers(steps: int, strength: float) -> None:
    """Check the number of steps and the strength.

    Raises:
        ValueError: Naming the one that is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= strength <= 2:
        raise ValueError(f"strength must lie in [0, 2], got {strength}")
