"""Converts the text after an option: numbers, flags, choices, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fluxsr.cli._support.messages import UsageError, nearest

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def convert(
    value: Any,
    kinds: Sequence[type],
    choices: Sequence[Any],
    optional: bool,
    where: str,
    reader: Callable[[str], Any] | None = None,
) -> Any:
    """Return the value that a text, or a value from YAML, stands for.

    Args:
        value: The text, or the value.
        kinds: The types that it may have; the first one that fits is taken.
        choices: Further values that it may have.
        optional: Whether it may be ``None``, written ``null``.
        where: The option, for the error.
        reader: Reads the text in a way of its own; its ``ValueError`` becomes the error.

    Raises:
        UsageError: If it is none of these.
    """
    if value is None or (value == "null" and str not in kinds):
        if optional:
            return None
    elif reader is not None:
        try:
            return reader(str(value))
        except ValueError as error:
            raise UsageError(str(error), where) from None
    elif value in choices:
        return value
    else:
        for kind in kinds:
            if (fitting := as_kind(value, kind)) is not None:
                return fitting
    words = [f"one of {', '.join(map(str, choices))}"] * bool(choices) + [WORDS[kind] for kind in kinds]
    suggestion = nearest(str(value), [str(one) for one in choices]) if choices and value not in (None, "") else ""
    raise UsageError(f"must be {' or '.join(words)}, got {value!r}", where, suggestion)


def as_kind(value: Any, kind: type) -> Any:
    """Return a value, or what a text says, as ``int``, ``float``, ``bool`` or ``str``; ``None`` if it is none."""
    if kind is str:
        return value if isinstance(value, str) else None
    if kind is bool:
        said = value.lower() if isinstance(value, str) else value
        return (
            {"true": True, "false": False}.get(said)
            if isinstance(said, str)
            else said
            if said in (True, False)
            else None
        )
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if kind is float:
        return number
    whole = isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\s*[-+]?[\d_]+\s*", value))
    return int(value) if whole else None


def positive(text: str) -> float:
    """Read a positive, finite number."""
    value = as_kind(text, float)
    if value is None or not 0 < value < float("inf"):
        raise ValueError(f"must be a positive number, got {text!r}")
    return float(value)


def count(text: str) -> int:
    """Read a number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """Read a number of at least zero."""
    if not text.isdecimal():
        raise ValueError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def port(text: str) -> int:
    """Read the number of a port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"must be a number from 1 to 65535, got {text!r}")
    return int(text)


def pixels(text: str) -> int:
    """Read a number of pixels, 2e8 as well as 200000000."""
    return int(positive(text))


def commas(text: str) -> list[str]:
    """Read names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("names none")
    return names


def width_and_height(text: str) -> tuple[int, int]:
    """Read ``WxH`` into (height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"must be WIDTHxHEIGHT in pixels, for example 3840x2160, got {text!r}")
    return int(parts[1]), int(parts[0])


def tile(text: str) -> int | str | None:
    """Read ``auto``, ``off`` (``None``) or pixels."""
    if text in ("off", "auto"):
        return None if text == "off" else text
    if not text.isdecimal():
        raise ValueError(f"must be auto, off or a number of pixels, got {text!r}")
    return count(text)
