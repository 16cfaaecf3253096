"""What a mistyped option was meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any


def suggestion(parser: Any, arguments: list[str]) -> str | None:
    """Return what to say about the first argument that no option has, if it is like one that there is.

    Known are the options of the parser and its subcommand, and all keys of the configuration files that are given: so one deep
    inside a ``class_path`` is known too.

    Args:
        parser: of argparse or jsonargparse.
        arguments: as typed.
    """
    known = {*_options(parser), *(f"--{key}" for file in _configs(arguments) for key in _keys(file))}
    for argument in arguments:
        name = argument.split("=", 1)[0].rstrip("+")
        if not name.startswith("--") or name in known or any(option.startswith(name) for option in known):
            continue
        close = get_close_matches(name, known, n=1, cutoff=0.8)
        if close:
            return f"there is no {name}; did you mean {close[0]}?"
    return None


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                if hasattr(inner, "_actions"):
                    yield from _options(inner)


def _configs(arguments: list[str]) -> Iterator[Any]:
    import yaml

    for name, value in pairwise([*arguments, ""]):
        path = Path(name.split("=", 1)[1] if name.startswith("--config=") else value)
        if name.split("=", 1)[0] in ("--config", "-c") and path.is_file():
            try:
                yield yaml.safe_load(path.read_text())
            except yaml.YAMLError:  # the parser says so itself
                continue


def _keys(value: Any, prefix: str = "") -> Iterable[str]:
    if not isinstance(value, dict):
        return [prefix]
    inside = [key for name, part in value.items() for key in _keys(part, f"{prefix}.{name}" if prefix else str(name))]
    return [*([prefix] if prefix else []), *inside]
