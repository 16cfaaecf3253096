"""What ``--help`` prints: one order for every command (what it does, usage, examples, options, notes)."""

from __future__ import annotations

import shutil
import textwrap
from argparse import SUPPRESS, Action
from typing import Any

# Wide enough for an option and its help on one line; narrower where the terminal is.
WIDEST = 110
_COLUMN = 28  # where the help of an option begins


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


def page(parser: Any, what: str, usage: str, examples: str, notes: str = "") -> str:
    """Return the help of a command.

    Args:
        parser: of argparse or jsonargparse; its options are listed in the order in which they were added.
        what: what the command does; the first sentence on its own is enough to know.
        usage: one line.
        examples: lines of a shell.
        notes: what else there is to know, paragraphs.
    """
    actions = [action for action in parser._actions if action.help != SUPPRESS]
    arguments = [_entry(action) for action in actions if not action.option_strings]
    options = [_entry(action) for action in actions if action.option_strings]
    parts = [flow(what), f"usage: {usage}", _section("examples", textwrap.dedent(examples).strip())]
    parts += [f"arguments:\n{''.join(arguments)}".rstrip()] if arguments else []
    parts += [f"options:\n{''.join(options)}".rstrip()]
    parts += [flow(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def _section(title: str, text: str) -> str:
    return f"{title}:\n{textwrap.indent(text, '  ')}"


def _entry(action: Action) -> str:
    """Return the lines of one option: names and value on the left, help on the right."""
    value = "" if action.nargs == 0 else f" {_value(action)}"
    head = f"  {', '.join(action.option_strings)}{value}" if action.option_strings else f"  {_value(action)}"
    lines = textwrap.wrap(action.help or "", width() - _COLUMN) or [""]
    if len(head) > _COLUMN - 2:
        lines = [head, *(" " * _COLUMN + line for line in lines)]
    else:
        lines = [head.ljust(_COLUMN) + lines[0], *(" " * _COLUMN + line for line in lines[1:])]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _value(action: Action) -> str:
    if action.metavar is not None:
        name = str(action.metavar)
    elif action.choices is not None:
        name = "|".join(str(choice) for choice in action.choices)
    else:
        name = action.dest.upper()
    return f"{name} ..." if action.nargs == "+" else name
