"""Shows the progress of a batch of images on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fluxsr.inference.batch import Watcher


class Bars(Watcher):
    """A bar in megapixels over the whole batch, with the time that is left, and the name of the image at hand."""

    wants_pixels = True

    def __init__(self, rich_progress: Any) -> None:
        self._progress = rich_progress
        self._jobs = self._number = 0
        self._before = self._pixels = 0.0

    def start(self, jobs: int, pixels: int) -> None:
        """Show the bar."""
        self._jobs = jobs
        self._task = self._progress.add_task("", total=max(pixels, 1) / 1e6)

    def begin(self, name: str, pixels: int) -> None:
        """Start with the next image."""
        self._number += 1
        self._pixels = pixels / 1e6
        self._progress.update(self._task, description=f"{self._number}/{self._jobs} {name}")

    def tiles(self, done: int, total: int) -> None:
        """Take note of the windows done."""
        self._progress.update(self._task, completed=self._before + self._pixels * done / max(total, 1))

    def end(self) -> None:
        """Count the image as done."""
        self._before += self._pixels
        self._progress.update(self._task, completed=self._before)


@contextmanager
def progress_bars() -> Iterator[Watcher]:
    """Show the bar during the body; nothing where there is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield Watcher()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total:.1f} MP"),
        TimeRemainingColumn(),
    )
    # Lines of stdout go through rich only where they share the terminal with the bar: a file and a pipe get theirs.
    shared = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=shared) as rich_progress:
        yield Bars(rich_progress)
