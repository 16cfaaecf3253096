"""Prints what a command says, and guesses what a mistyped name was meant to be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection
from contextlib import suppress

# What would end a line or steer a terminal; a file's name may hold all of it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def meant(name: str, known: Collection[str], other: str = "") -> str:
    """Return ``"; did you mean X?"`` where a known name is like the one that was typed, else ``other``.

    A name that alone begins like it, or alone has its last part (``losses`` for ``model.losses``), counts as near.
    """
    from difflib import get_close_matches

    same = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    started = [one for one in known if name and one.startswith(name)]
    near = next((found for found in (same, started) if len(found) == 1), get_close_matches(name, known, 1, 0.66))
    return f"; did you mean {near[0]}?" if near else other


class ResultLines:
    """Prints results on stdout, until it takes no more; the work goes on when nobody reads them or the disk is full.

    Names that stdout can't encode, or that would end the line, are printed with escapes.
    """

    def __init__(self) -> None:
        self.problem = ""  # why stdout took no more; empty where that is nobody's fault, as with `| head`
        self._open = True
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def print(self, line: str) -> None:
        """Print a line, at once."""
        if not self._open:
            return
        try:
            print(_CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line), flush=True)
        except OSError as error:
            self._open = False
            self.problem = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
            # What is left in the buffer goes nowhere, or Python would fail over it at the end.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.close(nowhere)


def tell(line: str) -> None:
    """Print a line to stderr, if it can be."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
