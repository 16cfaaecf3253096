"""Reads the text after an option as the type of a parameter: numbers, flags, choices, sizes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fluxsr.cli._support.messages import meant
from fluxsr.cli._support.signatures import Parameter

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def read_value(parameter: Parameter, text: str) -> Any:
    """Return what a text means for a parameter, or for one value of a sequence.

    Raises:
        ValueError: If it means nothing.
    """
    kinds, choices = parameter.kinds, parameter.choices
    if parameter.optional and (text == "null" or (text == "off" and str not in kinds)):
        return None
    for choice in choices:
        if text == str(choice):
            return choice
    for kind in kinds:
        with suppress(ValueError, KeyError):
            return _READERS[kind](text)
    words = [f"one of {', '.join(map(str, choices))}"] * bool(choices) + [_WORDS[kind] for kind in kinds]
    raise ValueError(f"must be {' or '.join(words)}, got {text!r}{meant(text, list(map(str, choices)))}")


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


def _whole(text: str) -> int:
    with suppress(ValueError):
        return int(text)
    if not float(text).is_integer():  # 2e8 is a whole number
        raise ValueError
    return int(float(text))


_READERS: dict[type, Any] = {
    int: _whole,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    str: str,
}
