"""Reads and prints sizes of memory as people write them."""

from __future__ import annotations

import re


def memory_size(text: str) -> int:
    """Read a number of bytes, such as ``24GB`` (10^9) or ``80GiB`` (2^30).

    Raises:
        ValueError: If it is no such text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"must be a size with its unit, such as 24GB or 80GiB, got {text!r}")
    power = "KMGT".find(match[2].upper()) + 1
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def gigabytes(size: float) -> str:
    """Write bytes in GB of 10^9, or in MB where they are few."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
