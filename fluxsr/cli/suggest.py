"""What a mistyped option was meant to be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any


def suggestion(message: str, arguments: list[str], known: Collection[str]) -> str | None:
    """Return what to say about the first argument that no option has, if it is like one that there is.

    Args:
        message: the parser's; one that is not about an unknown option has no suggestion.
        arguments: as typed.
        known: the options that there are, with their dashes.
    """
    if "ecognized" not in message and "accept" not in message:
        return None
    for argument in arguments:
        name = argument.split("=", 1)[0].rstrip("+")
        if not name.startswith("--") or name in known or name.removeprefix("--") not in message.replace("'--", "'"):
            continue
        started = [option for option in known if option.startswith(name)]
        close = started if len(started) == 1 else get_close_matches(name, known, n=1, cutoff=0.8)
        if close:
            return f"there is no {name}; did you mean {close[0]}?"
    return None


def other_spelling(argument: str, known: Collection[str]) -> str:
    """Return an option with the dashes or underscores that it is known by: ``--batch-size`` for ``--batch_size``, and back."""
    name, sign, value = argument.partition("=")
    if not name.startswith("--") or name in known:
        return argument
    for spelled in (name.replace("-", "_").replace("__", "--", 1), "--" + name[2:].replace("_", "-")):
        if spelled in known:
            return f"{spelled}{sign}{value}"
    return argument


def options_of(parser: Any) -> Iterator[str]:
    """Yield the option strings of a parser of argparse or jsonargparse, and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                if hasattr(inner, "_actions"):
                    yield from options_of(inner)
