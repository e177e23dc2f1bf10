"""What a policy's file asks for: each model verified as `run` would, then the policy itself looked at.

This imports torch: `check` imports it once everything that can be said without has been said.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from verifier.cells import Cell, Request
from verifier.cli import exits, showing
from verifier.cli.planning import InputOptions, command_line, plan_jobs, weights_of
from verifier.cli.verifying import Task
from verifier.cli.walking import walked, worst_of
from verifier.errors import UsageError, suggestion
from verifier.gate.breaches import expired, unused
from verifier.gate.findings import Outcome
from verifier.metrics import warm_up
from verifier.records import Check, CheckedModel
from verifier.storage.pages import mark_later, save_check
from verifier.storage.saving import check_writable
from verifier.weights import read_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from verifier.cli.planning import Job
    from verifier.cli.walking import Row
    from verifier.gate.policy_files import Entry, PolicyFile
    from verifier.records import Result

_AS_THEY_ARE = ("granularity", "localise", "semantics", "repeat", "outputs", "probe")


def only(found: PolicyFile, name: str) -> PolicyFile:
    """The policy with one of its models alone.

    Raises:
        UsageError: It has none of that name.
    """
    entries = tuple(each for each in found.entries if each.name == name)
    if not entries:
        names = [each.name for each in found.entries]
        near = suggestion(name, names) or f". There are {', '.join(names)}."
        raise UsageError(f"--only {name}: {found.path} has no such model{near}")
    return found._replace(entries=entries)


def planned(found: PolicyFile, out: Path, history: Path | None) -> dict[str, Task]:
    """The tasks of all models, by name, as far as they can be read before the first is built.

    Raises:
        UsageError: Something that is asked for is wrong.
        CannotRunError: Nothing can be written.
    """
    kept = None if history is None else history.absolute()  # before a model could change the directory
    tasks = {each.name: _task(each, found, out, kept) for each in found.entries}
    check_writable(out, *(task.jobs[0].out for task in tasks.values()))
    threading.Thread(target=warm_up, name="verifier-warm-up").start()  # while models are built
    return tasks


def _task(entry: Entry, found: PolicyFile, out: Path, history: Path | None) -> Task:
    where = f"--policy {found.path}: model {entry.name}"
    try:
        [job] = plan_jobs(
            entry.arch,
            entry.baseline,
            entry.candidate,
            image_size=None if entry.image_size is None else str(entry.image_size),
            batch_size=entry.batch_size,
            policy=found.policies[entry.name].name,
            out=out / entry.name,
        )
        job = replace(job, name=entry.name)
        cells = [Request(Cell.parse(each)) for each in entry.cells]
        known = None if entry.map is None else read_map(Path(entry.map))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    inputs = InputOptions(
        images=entry.images,
        file=entry.input,
        candidate_file=entry.candidate_input,
        candidate_preprocessing=entry.candidate_preprocessing,
        seed=entry.seed,
    )
    settings = {name: getattr(entry, name) for name in _AS_THEY_ARE}
    settings |= {"cells": cells, "parameter_map": known}
    settings["weights"] = weights_of(entry.weights, entry.baseline, entry.candidate)
    settings["batch_dim"] = None if entry.batch_dim == "none" else entry.batch_dim
    policies = {job: found.policies[entry.name]}
    # What tells of all models is not written by it.
    command = command_line(only=entry.name, junit=None, sarif=None, code_quality=None)
    return Task([job], inputs, policies, settings, None, out, history, named=True, command=command)


def carry_out(
    found: PolicyFile,
    tasks: Mapping[str, Task],
    out: Path,
    ended: Callable[[Sequence[Outcome]], None],
    *,
    whole: bool,
    debug: bool,
) -> NoReturn:
    """Verify every model, look at the policy itself, write the page, and end with the worst exit code.

    Of a part of the models (not `whole`) there is no page: in that of all they are marked as checked later. What only
    the others may need is let be.
    """
    started = time.perf_counter()
    jobs = [task.jobs[0] for task in tasks.values()]
    rows = walked(jobs, lambda job: tasks[job.name].one_of_several(job), debug=debug)
    results: dict[str, Result | None] = dict.fromkeys(
        found.policies
    )  # nothing is known of those not asked for
    results |= {job.name: row.outcome.result for job, row in zip(jobs, rows, strict=True)}
    today = datetime.now(UTC).date()
    failures = (*expired(found.policy, today), *unused(found.policy, results, today))
    code = worst_of([*(row.code for row in rows), *([1] if failures else [])])
    check = Check(
        policy=str(found.path),
        code=code,
        models=tuple(_model(job, row) for job, row in zip(jobs, rows, strict=True)),
        failures=failures,
        command=command_line(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - started,
    )
    showing.warn(save_check(check, out) if whole else mark_later(check, out))
    showing.show_check(check, out if whole else None)
    outcomes = [row.outcome for row in rows]
    ended([*outcomes, *([Outcome.of_policy(str(found.path), failures)] if failures else [])])
    exits.end(code)


def _model(job: Job, row: Row) -> CheckedModel:
    from reports import acceptance, sentences

    result = row.outcome.result
    return CheckedModel(
        name=job.name,
        baseline=job.baseline,
        candidate=job.candidate,
        verdict=row.outcome.verdict,
        code=row.code,
        said=row.network.said,
        accepted=() if result is None else acceptance.by_rule(result),
        weights="" if result is None else sentences.weights(result),
        report="" if result is None else row.network.report,
    )
