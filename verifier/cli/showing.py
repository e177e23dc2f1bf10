"""What a command shows while it works and when it is done."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.result import Verification

Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress_bar(first: str) -> Iterator[Progress]:
    """A live bar on stderr, gone when done; nothing at all where stderr is no terminal.

    Yields a function to be called with a stage, the steps done in it and the steps it has (0: unknown).
    """
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(first, total=None)
        current = first

        def update(stage: str, done: int, total: int) -> None:
            nonlocal current, task
            if stage != current:
                bar.remove_task(task)
                task, current = bar.add_task(stage, total=total or None), stage
            bar.update(task, completed=done, total=total or None)

        yield update


def show(verification: Verification, directory: Path | None) -> None:
    """Print the summary: in colour on a terminal, as plain text elsewhere."""
    from reports import terminal

    out_dir = None if directory is None else str(directory)
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(terminal.summary(verification, out_dir=out_dir))
    else:
        say(terminal.plain(verification, out_dir=out_dir))


def show_comparison(before: Verification, after: Verification) -> None:
    """Print what changed from one result to another, as `show` does."""
    from reports import comparison, terminal

    compared = comparison.compare(before, after)
    listed = comparison.sections(compared)
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(terminal.coloured(compared.headline, after.verdict, listed))
    else:
        say(terminal.as_text(compared.headline, listed))


def table(rows: Sequence[tuple[str, ...]], *, left: Collection[int]) -> str:
    """Rows of equally many cells as lines of text; the columns in `left` are aligned there, all others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Write to stdout. A reader who has left (`| head`) misses the rest; the exit code stays what it is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
