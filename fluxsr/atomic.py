"""Writes files whole or not at all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONG_NAME, _LONG_ENDING = 100, 16  # bytes; some disks take no more than 143


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; what the body writes there is renamed to ``path`` at its end.

    If the body fails, or the process is interrupted, what was at ``path`` stays as it was. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A long name is shortened, or the temporary one would be too long for the disk where the name itself is legal.
    name = os.fsencode(path.name)
    ending = path.suffix if len(os.fsencode(path.suffix)) <= _LONG_ENDING else ""
    short = path.name if len(name) <= _LONG_NAME else f"{zlib.crc32(name):08x}{ending}"
    temporary = path.with_name(f".tmp-{os.getpid()}-{short}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
