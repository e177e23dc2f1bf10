"""What a command shows while it works and when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from verifier.border import heartbeat
from verifier.border.error_texts import first_line
from verifier.cli import streams
from verifier.cli.streams import err, out
from verifier.ranks import ranks

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.initialisation.records import Initialisation
    from verifier.records import Check, Estimate, PreparationAlone, Result, Walk
    from verifier.training.records import Experiment, TrainingParity

Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress_bar(first: str) -> Iterator[Progress]:
    """A live bar on stderr, gone when done; nothing at all where stderr is no terminal.

    Yields a function to be called with a stage, the steps done in it and the steps it has (0: unknown).
    """
    if not (err().isatty() and ranks().leads):
        heartbeat.stage(first)
        yield lambda stage, _done, _total: heartbeat.stage(stage)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    heartbeat.stage(first)
    with Progress(*columns, console=Console(file=err()), transient=True) as bar:
        task = bar.add_task(first, total=None)
        current = first

        def update(stage: str, done: int, total: int) -> None:
            nonlocal current, task
            heartbeat.stage(stage)
            if stage != current:
                bar.remove_task(task)
                task, current = bar.add_task(stage, total=total or None), stage
            bar.update(task, completed=done, total=total or None)

        yield update


@contextlib.contextmanager
def training_bar() -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """A live bar on stderr with rate and time left; nothing where stderr is no terminal.

    Yields a function as `progress_bar` does, whose steps are images, and one that prints a line an epoch on stdout.
    """
    if not err().isatty():
        yield lambda _stage, _done, _total: None, lambda line: say(f"{line}\n")
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} images/s" if task.speed else "")

    columns = TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=Console(file=err()), transient=True, speed_estimate_period=60) as bar:
        task = bar.add_task("importing torch", total=None)
        first: int | None = None

        def update(stage: str, done: int, total: int) -> None:
            nonlocal first
            first = (
                done if first is None else first
            )  # what was learnt before an interruption took no time now
            bar.update(task, description=stage, completed=done - first, total=total - first)

        def line(text: str) -> None:
            if out().isatty():
                bar.console.print(text, highlight=False)  # above the bar
            else:
                say(f"{text}\n")

        yield update, line


def show_experiment(found: Experiment, directory: Path) -> None:
    """Print what an experiment ended with."""
    from reports import training

    say(training.plain(found, str(directory)))


def show(verification: Result, directory: Path | None, *, verbose: bool = False) -> None:
    """Print the summary: in colour on a terminal, as plain text elsewhere; the verdict alone if it cannot be made.

    With `verbose` it tells all there is, without it the answer.
    """
    from reports import terminal

    out_dir = None if directory is None else str(directory)
    try:
        if out().isatty():
            from rich.console import Console

            Console(file=out()).print(terminal.summary(verification, out_dir=out_dir, verbose=verbose))
        else:
            say(terminal.plain(verification, out_dir=out_dir, verbose=verbose))
    except Exception as error:
        warn([f"the summary cannot be made of the result: {first_line(error)}."])
        say(f"{verification.verdict}: {verification.reason}\n")


def show_check(found: Check, directory: Path | None) -> None:
    """Print how a check ended as a whole, behind the table of its models, and where its page is if it has one."""
    from reports import check, sections, wording
    from verifier.storage.pages import CHECK_PAGE

    found = wording.shown(found)
    say(sections.text(check.headline(found), check.sections(found)))
    if directory is not None:
        say(f"Page: {directory / CHECK_PAGE}\n")


def show_walk(found: Walk, *, total: bool) -> None:
    """Print the table of several networks, and behind it how many of them match."""
    from reports import walk, wording

    found = wording.shown(found)
    say(f"{walk.table(found)}\n" + (f"{walk.total(found)}\n" if total else ""))


def show_initialisation(found: Initialisation, page: Path | None) -> None:
    """Print what a comparison of initial values found, and where its page is."""
    from reports import initialisation

    say(initialisation.plain(found, out_dir=None if page is None else str(page)))


def show_preparation(found: PreparationAlone, page: Path | None) -> None:
    """Print how photographs are prepared, and where the page is."""
    from reports import preprocessing

    say(preprocessing.plain(found, out_dir=None if page is None else str(page)))


def show_estimates(found: Sequence[tuple[str, Estimate]]) -> None:
    """Print what comparisons will take, each by the name it has."""
    from reports import estimates

    say("\n".join(estimates.plain(name, estimate) for name, estimate in found))
    if len(found) > 1:
        say(f"\nall {len(found)}: about {sum(estimate.seconds for _, estimate in found):.0f} s\n")


def warn(lost: Sequence[str]) -> None:
    """Say on stderr what could not be made of a result, which is saved all the same; it changes no exit code."""
    for each in lost:
        streams.complain(f"warning: {each}")


def expecting(seconds: float) -> None:
    """Say on stderr how long a run will take from here."""
    told = f"{seconds:.0f} s" if seconds < _MINUTES else f"{seconds / 60:.0f} minutes"
    if ranks().leads:
        streams.complain(f"about {told} to go; what is looked for where the two diverge comes on top.")


_MINUTES = 120.0  # seconds from which on minutes are told


def show_comparison(before: Result, after: Result, page: Path | None) -> None:
    """Print what changed from one result to another, as `show` does, and where its page is if it has one."""
    from reports import comparison, sections, terminal

    compared = comparison.compare(before, after)
    listed = comparison.sections(compared, page=None if page is None else str(page))
    if out().isatty():
        from rich.console import Console

        Console(file=out()).print(terminal.coloured(compared.headline, after.verdict, listed))
    else:
        say(sections.text(compared.headline, listed))


def table(rows: Sequence[tuple[str, ...]], *, left: Collection[int]) -> str:
    """Rows as lines of text; the columns in `left` are aligned there, all others right."""
    from reports.sections import aligned

    return "\n".join(aligned(rows, left)) + "\n"


def show_parity(found: TrainingParity, directory: Path) -> None:
    """Print what a comparison of two trainings found, as `show` does."""
    from reports import parity
    from verifier.training.saving import PARITY_PAGE

    page = str(directory / PARITY_PAGE)
    if out().isatty():
        from rich.console import Console

        Console(file=out()).print(parity.summary(found, page=page))
    else:
        say(parity.plain(found, page=page))


def say(text: str) -> None:
    """Write to stdout. A reader who has left (`| head`) misses the rest; the exit code stays what it is."""
    streams.say(text)
