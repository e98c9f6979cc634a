"""Progress of long work: on a terminal a bar that moves, anywhere else a line each minute and one at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Tell = Callable[[int, int], None]
_SAY_EVERY_S = 60.0


@contextmanager
def bar(console: Console, title: str) -> Iterator[Tell]:
    """Show the progress of the block; call what it gives with how many are done and of how many."""
    if console.is_terminal:
        with _moving(console, title) as tell:
            yield tell
        return
    started = said = time.perf_counter()
    reached = 0

    def remember(done: int, total: int) -> None:
        nonlocal reached, said
        reached, now = done, time.perf_counter()
        if now - said >= _SAY_EVERY_S:
            said = now
            console.print(f"  {title:<44} {done:>8,}  {now - started:6.1f} s, of {total:,}", highlight=False)

    yield remember
    count = f"{reached:>8,}" if reached else " " * 8
    console.print(f"[green]✓[/green] {title:<44} {count}  {time.perf_counter() - started:6.1f} s", highlight=False)


@contextmanager
def _moving(console: Console, title: str) -> Iterator[Tell]:
    columns = (
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
        if progress.tasks[0].total is None:
            progress.update(task, completed=1, total=1)
