"""Values of options that several commands have, each parsed with an error of its own."""

from __future__ import annotations

import argparse


def positive(text: str) -> float:
    """Parse a positive, finite number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def count(text: str) -> int:
    """Parse a number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def pixels(text: str) -> int:
    """Parse a number of pixels, 2e8 as well as 200000000."""
    return int(positive(text))


def width_and_height(text: str) -> tuple[int, int]:
    """Parse ``WxH`` into (height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, for example 3840x2160, got {text!r}")
    return int(parts[1]), int(parts[0])


def tile(text: str) -> int | str | None:
    """Parse ``auto``, ``off`` (``None``) or pixels."""
    if text == "off":
        return None
    if text == "auto":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be auto, off or a number of pixels, got {text!r}")
    return count(text)
