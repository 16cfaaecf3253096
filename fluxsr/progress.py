"""Shows a progress bar for work that takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def progress(text: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr during the body; yields ``advance(n)``. It says nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(text, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


@contextmanager
def progress_of(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar during the body, from the first call of what it yields: ``report(done, total)``."""
    with ExitStack() as stack:
        shown = 0
        advance: Callable[[int], None] | None = None

        def report(done: int, total: int) -> None:
            nonlocal shown, advance
            advance = advance or stack.enter_context(progress(text, total))
            advance(done - shown)
            shown = done

        yield report
