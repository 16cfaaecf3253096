"""Shows a progress bar for work that takes minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Report = Callable[..., None]
"""``report(done, total)``, or ``report(done, total, text)`` where the text changes."""


@contextmanager
def progress_of(text: str, unit: str = "") -> Iterator[Report | None]:
    """Yield what shows a bar on stderr, from its first call to the end of the body; None where there is no terminal.

    Args:
        text: What stands before the bar.
        unit: Unit of the counts, which then have a decimal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    number = ".1f" if unit else ".0f"
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{{task.completed:{number}}}/{{task.total:{number}}} {unit}".rstrip()),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Lines of stdout go through rich only where they share the terminal with the bar: a file and a pipe get theirs.
    shared = sys.stdout is not None and sys.stdout.isatty()
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=shared)
    with ExitStack() as stack:

        def report(done: float, total: float, description: str = text) -> None:
            if not bar.tasks:
                bar.add_task(text, total=total)
                stack.enter_context(bar)
            bar.update(bar.tasks[0].id, completed=done, total=total, description=description)

        yield report
