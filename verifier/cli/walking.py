"""Several networks one after the other: a line each as it ends, a table of all at the end, the worst exit code."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from verifier.border.error_texts import first_line
from verifier.border.signals import check_unanswered
from verifier.cli import exits, interruption, showing, streams
from verifier.cli.planning import command_line
from verifier.errors import OutputError
from verifier.gate.findings import Outcome
from verifier.records import Walk, WalkedNetwork
from verifier.storage.earlier import note_of
from verifier.storage.pages import WALK, WALK_PAGE, clear_walk, save_walk
from verifier.storage.saving import REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from verifier.cli.planning import Job
    from verifier.storage.saving import Verification

# From the mildest to the worst: what is known to be wrong is worse than what could not be found out.
_ORDER = (0, 4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """How one network ended: for the record, and for whoever reads outcomes."""

    network: WalkedNetwork
    outcome: Outcome

    @property
    def code(self) -> int:
        """Its exit code."""
        return self.network.code

    @property
    def verified(self) -> bool:
        """Whether it has a result."""
        return bool(self.network.report)


def walk(
    jobs: Sequence[Job],
    verify: Callable[[Job], Verification],
    out: Path,
    ended: Callable[[Sequence[Outcome]], None],
    *,
    debug: bool,
) -> NoReturn:
    """Verify every job, keep the index of all in `out`, tell `ended`, and end with the worst exit code."""
    clear_walk(out)  # of an earlier walk, whose results are about to be replaced
    rows = walked(jobs, verify, debug=debug, keep=lambda found: _kept(found, out))
    showing.say(_reports(rows, out))
    ended([row.outcome for row in rows])
    exits.end(worst_of(row.code for row in rows))


def _kept(found: Walk, out: Path) -> None:
    """Write the index; what cannot be written is a warning, as every result is saved."""
    try:
        showing.warn(save_walk(found, out))
    except OutputError as error:
        showing.warn([f"{WALK} cannot be written: {error}"])


def worst_of(codes: Iterable[int]) -> int:
    """Of exit codes the one that says the worst."""
    return max(codes, key=_ORDER.index)


def walked(
    jobs: Sequence[Job],
    verify: Callable[[Job], Verification],
    *,
    debug: bool,
    keep: Callable[[Walk], None] | None = None,
) -> list[Row]:
    """Verify every job, with a line each, and show the table of all; `keep` is told after each how far it got.

    One that cannot run does not keep the others from it. Without `keep`, whoever called tells the total.
    """
    rows: list[Row] = []
    written: list[str] = []
    width = max(len(job.name) for job in jobs)
    started = time.perf_counter()
    for job in jobs:
        row = _row(job, verify, debug=debug)
        rows.append(row)
        if row.verified:
            written.append(str(job.out))
            interruption.leaves(f"results are in {', '.join(written)}.")
        showing.say(f"{job.name.ljust(width)}  {row.network.said}\n")
        so_far = _so_far(rows, jobs, started)
        if keep is not None:
            keep(so_far)
        gc.collect()  # a model and its copies refer to each other; the next one needs the memory
    showing.say("\n")
    showing.show_walk(so_far, total=keep is not None)
    return rows


def _so_far(rows: Sequence[Row], jobs: Sequence[Job], started: float) -> Walk:
    return Walk(
        networks=tuple(row.network for row in rows),
        awaited=tuple(job.name for job in jobs[len(rows) :]),
        command=command_line(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - started,
    )


def _row(job: Job, verify: Callable[[Job], Verification], *, debug: bool) -> Row:
    from reports import sentences, wording
    from reports.headline import headline

    started = time.perf_counter()
    asked: dict[str, Any] = {
        "name": job.name,
        "baseline": job.baseline,
        "candidate": job.candidate,
        "policy": job.policy,
    }
    try:
        verification = wording.shown(verify(job))
    except BaseException as error:
        check_unanswered(error)
        if debug:
            traceback.print_exc(file=streams.err())
        message, code = exits.told(error)
        note = note_of(error)
        failed = WalkedNetwork(
            **asked,
            verdict=None,
            code=code,
            said=f"could not run: {message}",
            seconds=time.perf_counter() - started,
            earlier=f"{note[:1].lower()}{note[1:].rstrip('.')}",
        )
        return Row(failed, Outcome(job.candidate, failure=message))
    try:
        said = headline(verification)
        worst = next(iter(sentences.worst(verification.layers, 1)), None)
    except Exception as error:
        showing.warn([f"the headline cannot be made of the result: {first_line(error)}."])
        said, worst = f"{verification.verdict}: {verification.reason}", None
    network = WalkedNetwork(
        **(asked | {"policy": verification.policy}),
        verdict=verification.verdict,
        code=exits.EXIT_CODES[verification.verdict],
        said=said,
        parameters=verification.candidate.parameters,
        sites=verification.candidate.sites,
        compared=verification.coverage.candidate_share,
        inputs=next(iter(verification.inputs.shapes), ()),
        largest=sentences.error(worst.total) if worst else 0.0,
        seconds=time.perf_counter() - started,
        report=f"{job.out.name}/{REPORT}",
    )
    return Row(network, Outcome.of(verification))


def _reports(rows: Sequence[Row], out: Path) -> str:
    """Where the reports are, of the networks that have one."""
    lines = [f"Index: {out / WALK_PAGE}\n"]
    if any(row.verified for row in rows):
        lines.append(f"Reports: {out}/NAME/report.html\n")
    missing = [row for row in rows if not row.verified]
    if missing:
        told = [
            f"{row.network.name}{f' ({row.network.earlier})' if row.network.earlier else ''}"
            for row in missing
        ]
        lines.append(f"No report, as it could not run: {', '.join(told)}\n")
    return "".join(lines)
