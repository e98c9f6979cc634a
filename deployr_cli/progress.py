"""Progress bars for long work: on a terminal they move, in a log each step leaves one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Tell = Callable[[int, int], None]


@contextmanager
def bar(console: Console, title: str) -> Iterator[Tell]:
    """Show a bar while the block runs; call what it gives with how many are done and of how many."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
        shown = progress.tasks[0]
        if shown.total is None:
            progress.update(task, completed=1, total=1)
