"""Prints results on stdout, and lets the work continue when nobody reads them or the disk is full."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

# What would end a line or steer a terminal; a file's name may hold all of it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ResultLines:
    """Prints lines, until stdout takes no more.

    Names that stdout can't encode, or that would end the line, are printed with escapes.

    Attributes:
        problem: Why stdout took no more; empty where that is nobody's fault, as with ``| head``.
    """

    def __init__(self) -> None:
        self.problem = ""
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
        except BrokenPipeError:
            self._close()
        except OSError as error:
            self.problem = error.strerror or str(error)
            self._close()

    def _close(self) -> None:
        """Let what is left in the buffer go nowhere, or Python would fail over it at the end."""
        self._open = False
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def tell(line: str) -> None:
    """Print a line to stderr, if it can be."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
