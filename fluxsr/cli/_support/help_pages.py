"""Prints ``--help`` in one order for every command: what it does, usage, examples, options, notes."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any, NoReturn

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


class PageParser(argparse.ArgumentParser):
    """Parses options, and prints a page about them; what is wrong with them is an error of one line.

    Args:
        what: What the command does; the first sentence on its own is enough to know.
        usage: One line.
        examples: Lines of a shell.
        notes: What else there is to know, paragraphs.
        command: Name of the command, for the errors.
    """

    positional: argparse.Action | None = None  # what stands without a name

    def __init__(self, what: str, usage: str, examples: str, notes: str, command: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        self.add_argument("-h", "--help", action="help", help="show this page and stop")
        shown = textwrap.indent(textwrap.dedent(examples).strip(), "  ")
        self._before = [flow(what), f"usage: {usage}", f"examples:\n{shown}"]
        self._after = [flow(notes)] if notes else []
        self._command = command

    def format_help(self) -> str:
        """Return the page."""
        formatter = _Formatter("", max_help_position=_COLUMN, width=width())
        for title, actions in (("arguments", [self.positional]), ("options", self._actions)):
            formatter.start_section(title)
            formatter.add_arguments([action for action in actions if action is not None])
            formatter.end_section()
        return "\n\n".join([*self._before, formatter.format_help().strip(), *self._after]) + "\n"

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise ValueError(f"{message.removeprefix('argument ')} (`fluxsr {self._command} --help` lists the options)")


class _Formatter(argparse.HelpFormatter):
    """Shows an option's value once, after its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        value: Any = action.metavar or ""
        return " ".join(filter(None, [", ".join(action.option_strings), value]))

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar)
