"""Represents a user's mistake as an exception with fields, and guesses what a mistyped name was meant to be."""

from __future__ import annotations

from collections.abc import Collection

LONGEST = 300  # characters of a library's message


class UsageError(ValueError):
    """A mistake in an option or a configuration, which ``fluxsr`` prints as one line.

    Args:
        what: What is wrong there, and what to do where that can be said.
        where: The option with its dashes, or the file and the key; empty where it is no single one.
        suggestion: The name that was probably meant.
    """

    def __init__(self, what: str, where: str = "", suggestion: str = "") -> None:
        super().__init__(what, where, suggestion)
        self.what = what
        self.where = where
        self.suggestion = suggestion

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}{self.what}" + (f"; did you mean {self.suggestion}?" if self.suggestion else "")


def nearest(name: str, known: Collection[str], cutoff: float = 0.66) -> str:
    """Return the known name that was probably meant, or an empty text.

    Args:
        name: What was typed.
        known: What there is. One that alone begins like it, or alone has its last part, counts as near: ``losses`` for
            ``model.losses``.
        cutoff: How alike two names must be, from 0 to 1.
    """
    from difflib import get_close_matches

    same = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    started = [one for one in known if one.startswith(name)]
    for found in (same, started):
        if len(found) == 1:
            return found[0]
    return next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), "")


def other_spelling(argument: str, known: Collection[str]) -> str:
    """Return an option with the dashes or underscores that it is known by: ``--batch_size`` for ``--batch-size``."""
    name, sign, value = argument.partition("=")
    if not name.startswith("--") or name in known:
        return argument
    spelled = name.replace("-", "_").replace("__", "--", 1)
    return f"{spelled}{sign}{value}" if spelled in known else argument


def shortened(message: str) -> str:
    """Return a library's message in one line of a bearable length."""
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4].rstrip()} ..."
