"""What `run` was asked for, one network or many: read, verified, saved and shown.

This imports torch: `run` imports it once everything that can be said without has been said.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec.structs import replace

from verifier.bench.checkpoints import Checkpoint
from verifier.border import heartbeat
from verifier.border.ahead import heard_by
from verifier.cells import Cell, Request, missing_here, product
from verifier.cli import exits, interruption, showing
from verifier.cli.planning import alone, command_line, explained
from verifier.cli.walking import walk
from verifier.errors import ModelError, UsageError, VerifierError
from verifier.gate.breaches import expired
from verifier.gate.findings import Outcome
from verifier.gate.history import keep
from verifier.gate.policy_files import policy_for
from verifier.inputs import Stream
from verifier.metrics import warm_up
from verifier.ranks import ranks
from verifier.storage.earlier import awaiting
from verifier.storage.saving import WRITTEN, check_file, check_writable, save_rendered, save_result, save_text
from verifier.verification import verify
from verifier.weights import as_toml, read_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from verifier.cli.planning import InputOptions, Job
    from verifier.judge import Policy
    from verifier.storage.saving import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """Cells by name, or lists of what is combined."""

    names: str | None
    device: str
    dtype: str
    memory_format: str
    autocast: str

    def requests(self) -> list[Request]:
        """All of them.

        Raises:
            UsageError: An option names nothing, or what there is not.
            DeviceError: None can run here.
        """
        if self.names is not None:
            return [Request(Cell.parse(name)) for name in _listed("--cells", self.names)]
        return product(
            _listed("--device", self.device),
            _listed("--dtype", self.dtype),
            _listed("--memory-format", self.memory_format),
            [_switch(text) for text in _listed("--autocast", self.autocast)],
        )


@dataclass(frozen=True, slots=True)
class Task:
    """Networks to verify, and all that `verify` takes with each; `settings` are options it takes as they are.

    `named` says that a policy's file gives the jobs their names, which their results then have; `command` is what
    verifies the only one of them alone, where that is another than this process was given.
    """

    jobs: Sequence[Job]
    inputs: InputOptions
    policies: Mapping[Job, Policy]
    settings: Mapping[str, Any]
    save_map: Path | None
    out: Path
    history: Path | None = None
    repro: Path | None = None
    checkpoint: Path | None = None
    named: bool = False
    command: str = ""

    @classmethod
    def of(
        cls,
        jobs: Sequence[Job],
        inputs: InputOptions,
        cells: CellOptions,
        settings: Mapping[str, Any],
        *,
        map_file: Path | None,
        save_map: Path | None,
        out: Path,
        history: Path | None = None,
        repro: Path | None = None,
        checkpoint: Path | None = None,
    ) -> Task:
        """All that can be read and checked before the first network is built.

        Raises:
            UsageError: An option is wrong.
            CannotRunError: Nothing can run here, or nothing can be written.
        """
        policies = {job: policy_for(job.policy, job.baseline, job.candidate) for job in jobs}
        asked = cells.requests()
        missing_here(asked)
        today = datetime.now(UTC).date()
        for each in dict.fromkeys(policies.values()):
            showing.warn(expired(each, today))
        check_writable(out, *(job.out for job in jobs), *([] if repro is None else [repro]))
        known = None if map_file is None else read_map(map_file)
        for file in (checkpoint, None if str(save_map) == "-" else save_map):
            if file is not None:
                check_file(file)
        threading.Thread(target=warm_up, name="verifier-warm-up").start()  # while models are built
        one_networks = {
            "--input": inputs.file,
            "--data": inputs.data,
            "--candidate-input": inputs.candidate_file,
        }
        for option, value in (
            one_networks | {"--map": map_file, "--save-map": save_map, "--checkpoint": checkpoint}
        ).items():
            if value is not None and len(jobs) > 1:
                raise UsageError(
                    f"{option} belongs to one network, but --arch names several; leave one of them out."
                )
        return cls(
            jobs,
            inputs,
            policies,
            {**settings, "cells": asked, "parameter_map": known},
            save_map,
            out,
            None if history is None else history.absolute(),  # before a model could change the directory
            None if repro is None else repro.absolute(),
            None if checkpoint is None else checkpoint.absolute(),
        )

    def carry_out(
        self, *, several: bool, ended: Callable[[Sequence[Outcome]], None], verbose: bool, debug: bool
    ) -> NoReturn:
        """Verify every network, tell `ended` of it and end with the exit code, of several with the worst.

        Of several ranks one speaks, writes and has the exit code.
        """
        if not ranks().leads:
            self._follow(several=several)
        if several:
            walk(self.jobs, self.one_of_several, self.out, ended, debug=debug)
        with showing.progress_bar("reading inputs") as progress:
            verification = self._verified(self.jobs[0], progress)
            if self.save_map is not None and str(self.save_map) != "-":
                save_text(as_toml(verification.weights), self.save_map)
        if str(self.save_map) == "-":
            showing.say(as_toml(verification.weights))
        showing.show(verification, self.out, verbose=verbose)
        ended([Outcome.of(verification)])
        exits.by(verification.verdict)

    def one_of_several(self, job: Job) -> Verification:
        """Verify one network and save its result; told under its name."""
        with showing.progress_bar(job.name) as bar:
            return self._verified(job, lambda stage, done, total: bar(f"{job.name}: {stage}", done, total))

    def _follow(self, *, several: bool) -> NoReturn:
        """Take part in what another rank tells."""
        for job in self.jobs:
            try:
                self._answer(job, lambda stage, *_: heartbeat.stage(stage), None)
            except VerifierError:
                if not several:
                    raise
        exits.end(0)

    def _verified(self, job: Job, progress: showing.Progress) -> Verification:
        repro = None if self.repro is None else self.repro / job.out.relative_to(self.out)
        with awaiting(job.out, WRITTEN):
            verification = self._answer(job, progress, repro)
            if self.named:
                verification = replace(verification, model=job.name)
            saved = save_result(verification, job.out)
            interruption.leaves(f"the result is in {job.out}.")
            if self.checkpoint is not None:
                Checkpoint(self.checkpoint).clear()
            showing.warn(keep(verification, self.history))
            showing.warn(save_rendered(verification, job.out, saved))
            return verification

    def _ending(self) -> AbstractContextManager[None]:
        """Where samples are kept, what a queue or a limit of time ends (SIGTERM) keeps what it has, as Ctrl-C does.

        One of several ranks may wait for others that have died, and has to end at once.
        """
        alone = self.checkpoint is not None and ranks().size == 1
        return interruption.also_of(signal.SIGTERM) if alone else contextlib.nullcontext()

    def _answer(self, job: Job, progress: showing.Progress, repro: Path | None) -> Verification:
        progress("reading inputs", 0, 0)
        given, candidates = self.inputs.read(job, streaming=True)
        if self.checkpoint is not None:
            if not isinstance(given, Stream):
                raise UsageError("--checkpoint keeps samples that are streamed: --data, or many --images.")
            given.checkpoint = Checkpoint(self.checkpoint)
            interruption.leaves(partial(_measured, self.checkpoint))
        progress("building models", 0, 0)
        try:
            with heard_by(showing.expecting), self._ending():
                found = verify(
                    self.inputs.spec(job.baseline),
                    self.inputs.spec(job.candidate),
                    given,
                    candidate_inputs=candidates,
                    policy=self.policies[job],
                    batch_size=job.batch_size,
                    seed=self.inputs.seed,
                    command=self.command or (command_line() if job.out == self.out else alone(job, repro)),
                    progress=progress,
                    repro=repro,
                    **self.settings,
                )
        except ModelError as error:
            raise explained(error, given) from error
        ranks().gather(None)  # what one of several was told after they last met counts for all
        return found


def _measured(checkpoint: Path) -> str:
    if not checkpoint.is_file():
        return "nothing was written."
    return f"what was measured is in {checkpoint}, and the same command goes on from there."


def _listed(option: str, text: str) -> list[str]:
    found = [item.strip() for item in text.split(",") if item.strip()]
    if not found:
        raise UsageError(f"{option} names nothing; see --help for what it takes.")
    return found


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise UsageError(f"--autocast {text}: write on, off or off,on.")
    return text == "on"
