"""Several networks one after the other: a line each as it ends, a table of all at the end, the worst exit code."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from verifier.border.error_texts import first_line
from verifier.border.signals import check_unanswered
from verifier.cli import exits, interruption, showing, streams
from verifier.gate.findings import Outcome
from verifier.records import Verdict
from verifier.storage.earlier import note_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from verifier.cli.planning import Job
    from verifier.storage.saving import Verification

# From the mildest to the worst: what is known to be wrong is worse than what could not be found out.
_ORDER = (0, 4, 3, 2, 1)
_HEADER = (
    "network",
    "verdict",
    "policy",
    "inputs",
    "parameters",
    "sites",
    "compared",
    "largest error",
    "seconds",
)
_LEFT = {0, 1, 2}


@dataclass(frozen=True, slots=True)
class Row:
    """How one network ended: its exit code, one sentence, what the table shows of it, and whether it has a result.

    `earlier` is where a result of before is, of a network that could not run this time.
    """

    code: int
    said: str
    cells: tuple[str, ...]
    outcome: Outcome
    verified: bool = True
    earlier: str = ""


def walk(
    jobs: Sequence[Job],
    verify: Callable[[Job], Verification],
    out: Path,
    ended: Callable[[Sequence[Outcome]], None],
    *,
    debug: bool,
) -> NoReturn:
    """Verify every job, tell `ended` of all, and end with the worst exit code."""
    started = time.perf_counter()
    rows = walked(jobs, verify, debug=debug)
    showing.say(f"{_total(rows, time.perf_counter() - started)}\n{_reports(rows, out)}")
    ended([row.outcome for row in rows])
    exits.end(worst_of(row.code for row in rows))


def worst_of(codes: Iterable[int]) -> int:
    """Of exit codes the one that says the worst."""
    return max(codes, key=_ORDER.index)


def walked(jobs: Sequence[Job], verify: Callable[[Job], Verification], *, debug: bool) -> list[Row]:
    """Verify every job, with a line each, and show the table of all.

    One that cannot run does not keep the others from it.
    """
    rows = []
    written: list[str] = []
    width = max(len(job.name) for job in jobs)
    for job in jobs:
        row = _row(job, verify, debug=debug)
        rows.append(row)
        if row.verified:
            written.append(str(job.out))
            interruption.leaves(f"results are in {', '.join(written)}.")
        showing.say(f"{job.name.ljust(width)}  {row.said}\n")
        gc.collect()  # a model and its copies refer to each other; the next one needs the memory
    showing.say(f"\n{_table([row.cells for row in rows])}\n")
    return rows


def _row(job: Job, verify: Callable[[Job], Verification], *, debug: bool) -> Row:
    from reports import sentences, wording
    from reports.headline import headline

    started = time.perf_counter()
    try:
        verification = wording.shown(verify(job))
    except BaseException as error:
        check_unanswered(error)
        if debug:
            traceback.print_exc(file=streams.err())
        message, code = exits.told(error)
        seconds = f"{time.perf_counter() - started:.1f}"
        cells = (job.name, "could not run", job.policy, *["-"] * 5, seconds)
        note = note_of(error)
        earlier = f"{note[:1].lower()}{note[1:].rstrip('.')}"
        outcome = Outcome(job.candidate, failure=message)
        return Row(code, f"could not run: {message}", cells, outcome, verified=False, earlier=earlier)
    try:
        said = headline(verification)
        worst = next(iter(sentences.worst(verification.layers, 1)), None)
    except Exception as error:
        showing.warn([f"the headline cannot be made of the result: {first_line(error)}."])
        said, worst = f"{verification.verdict}: {verification.reason}", None
    return Row(
        exits.EXIT_CODES[verification.verdict],
        said,
        (
            job.name,
            str(verification.verdict),
            verification.policy,
            "x".join(map(str, next(iter(verification.inputs.shapes), ()))) or "-",
            f"{verification.candidate.parameters:,}",
            f"{verification.candidate.sites:,}",
            wording.share(verification.coverage.candidate_share),
            wording.figure(sentences.error(worst.total) if worst else 0.0),
            f"{time.perf_counter() - started:.1f}",
        ),
        Outcome.of(verification),
    )


def _reports(rows: Sequence[Row], out: Path) -> str:
    """Where the reports are, of the networks that have one."""
    lines = []
    if any(row.verified for row in rows):
        lines.append(f"Reports: {out}/NAME/report.html\n")
    missing = [row for row in rows if not row.verified]
    if missing:
        told = [f"{row.cells[0]}{f' ({row.earlier})' if row.earlier else ''}" for row in missing]
        lines.append(f"No report, as it could not run: {', '.join(told)}\n")
    return "".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return showing.table([_HEADER, *rows], left=_LEFT)


def _total(rows: Sequence[Row], seconds: float) -> str:
    matching = sum(row.outcome.verdict is Verdict.MATCH for row in rows)
    accepted = sum(row.outcome.verdict is Verdict.ACCEPTED for row in rows)
    resting = f", {accepted} accepted by policy" if accepted else ""
    return f"{matching} of {len(rows)} networks match{resting}; {seconds:.0f} s"
