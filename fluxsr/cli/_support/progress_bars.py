"""Progress of a batch of images on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fluxsr.inference.batch import Watcher


class Bars(Watcher):
    """One bar for the images, one for the windows of the image at hand."""

    def __init__(self, rich_progress: Any) -> None:
        self._progress = rich_progress

    def start(self, jobs: int) -> None:
        """Show the bars."""
        self._images = self._progress.add_task("images", total=jobs)
        self._tiles = self._progress.add_task("", total=1, visible=False)

    def begin(self, name: str) -> None:
        """Start with the next image."""
        self._progress.reset(self._tiles, description=name, total=1, visible=True)

    def tiles(self, done: int, total: int) -> None:
        """Take note of the windows done."""
        self._progress.update(self._tiles, completed=done, total=total)

    def end(self) -> None:
        """Count the image as done."""
        self._progress.update(self._tiles, visible=False)
        self._progress.advance(self._images)


@contextmanager
def progress_bars() -> Iterator[Watcher]:
    """Show the bars during the body; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield Watcher()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as rich_progress:
        yield Bars(rich_progress)
