"""Prints ``--help`` in one order for every command: what it does, usage, examples, options, notes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

# Wide enough for an option and its help on one line; narrower where the terminal is.
WIDEST = 110
_COLUMN = 28  # where the help of an option begins


class Entry(NamedTuple):
    """One line of help: the option's names, none for an argument without name; the name of its value; what it does."""

    names: tuple[str, ...]
    value: str
    help: str


def width() -> int:
    """Return the width of a page in characters."""
    return max(60, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def flow(text: str) -> str:
    """Wrap paragraphs to the page; lines that begin with a space keep their shape."""
    blocks = textwrap.dedent(text).strip("\n").split("\n\n")
    return "\n\n".join(
        block if any(line.startswith(" ") for line in block.splitlines()) else textwrap.fill(block, width())
        for block in blocks
    )


def page(entries: Sequence[Entry], what: str, usage: str, examples: str, notes: str = "") -> str:
    """Return the help of a command.

    Args:
        entries: The arguments and options, in their order.
        what: What the command does; the first sentence on its own is enough to know.
        usage: One line.
        examples: Lines of a shell.
        notes: What else there is to know, paragraphs.
    """
    arguments = [_lines(entry) for entry in entries if not entry.names]
    options = [_lines(entry) for entry in entries if entry.names]
    parts = [flow(what), f"usage: {usage}", _section("examples", textwrap.dedent(examples).strip())]
    parts += [f"arguments:\n{''.join(arguments)}".rstrip()] if arguments else []
    parts += [f"options:\n{''.join(options)}".rstrip()]
    parts += [flow(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def _section(title: str, text: str) -> str:
    return f"{title}:\n{textwrap.indent(text, '  ')}"


def _lines(entry: Entry) -> str:
    """Return the lines of one option: names and value on the left, help on the right."""
    head = f"  {', '.join(entry.names)} {entry.value}".rstrip() if entry.names else f"  {entry.value}"
    lines = textwrap.wrap(entry.help, width() - _COLUMN) or [""]
    if len(head) > _COLUMN - 2:
        lines = [head, *(" " * _COLUMN + line for line in lines)]
    else:
        lines = [head.ljust(_COLUMN) + lines[0], *(" " * _COLUMN + line for line in lines[1:])]
    return "\n".join(line.rstrip() for line in lines) + "\n"
