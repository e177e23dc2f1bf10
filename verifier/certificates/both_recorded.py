"""The verification of two recordings, of which neither model is there, or of a model beside a recording of passes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from verifier.bench.side import Side
from verifier.certificates.arguments import given_to
from verifier.certificates.between import Between, between
from verifier.certificates.certificate import SUFFIX, Certificate
from verifier.certificates.live import Live, is_live
from verifier.certificates.recording import undisturbed
from verifier.certificates.runs import Run, fitting, opened, runs_of
from verifier.certificates.watching import Watch
from verifier.environment import describe
from verifier.errors import CertificateError, ModelError
from verifier.judge import concluded, coverage, with_sources
from verifier.models.copying import copy_with, state_of
from verifier.records import CertificateInfo, StaticDifference, Verdict, WeightsInfo
from verifier.storage.saving import Verification
from verifier.weights import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.bench.protocol import Protocol

_SOME = 3
_DEFAULTS = ("transfer", "calibrated", "as-is")  # what is asked for where nobody asks, and what it comes to


def are_recorded(baseline: Any, candidate: Any) -> bool:
    """Whether a candidate is a recording, or a baseline one of passes, or these are the names of their files."""
    named = isinstance(baseline, str | Path) and _is_recording(baseline) and is_live(baseline)
    return _is_recording(candidate) or isinstance(baseline, Live) or named


def _is_recording(found: Any) -> bool:
    named = isinstance(found, str) and found.lower().endswith(SUFFIX)
    return named or isinstance(found, Live | Certificate | Path)


def recordings_verified(
    baseline: Any,
    candidate: Any,
    inputs: Any,
    *,
    weights: str,
    parameter_map: Mapping[str, object] | None,
    protocol: Protocol,
    seed: int,
    command: str,
    needing: Mapping[str, bool],
) -> Verification:
    """Are two recorded runs those of one function, and if not, where do they part?

    Args:
        baseline: A recording of passes or a certificate, or its file.
        candidate: The same; beside a recording of passes also a model or a specification of one.
        inputs: What was recorded, for a model where the baseline's file does not hold it; else None.
        weights: A mode of `verifier.verify`; either side computes with its own.
        parameter_map: As for `verifier.verify`.
        protocol: How it is judged.
        seed: For a candidate that is built.
        command: How it was asked for, for the record.
        needing: What was asked for that only live models could give, by its option.

    Raises:
        CertificateError: One cannot be read, or the two were not given the same.
        CannotRunError: The candidate raised.
    """
    started = time.perf_counter()
    for option, asked in needing.items():
        if asked:
            raise CertificateError(f"{option} needs two live models, and a recording is none.")
    if weights not in _DEFAULTS:
        raise CertificateError(
            f"what is recorded has computed with its own weights (as-is), not with {weights}."
        )
    if not _is_recording(baseline):
        raise CertificateError("the candidate is a recording, so the baseline has to be one, too: record it.")
    before = runs_of(opened(baseline))
    after = runs_of(opened(candidate)) if _is_recording(candidate) else _ran(candidate, before, inputs, seed)
    pairs = fitting(before, after)
    for one, two in pairs:
        _check(one, two)
    found = []
    for k, (one, two) in enumerate(pairs):
        protocol.progress("comparing recordings", k, len(pairs))
        known = resolve(parameter_map or {}, _shapes(one), _shapes(two))
        found.append(between(one, two, known, protocol.policy))
    return _verification(pairs, (len(before), len(after)), found, protocol, seed, command, started)


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    return {name: each.shape for name, each in run.tensors.items()}


def _check(baseline: Run, candidate: Run) -> None:
    """See that two runs can be compared.

    Raises:
        CertificateError: They were given other inputs, or one computed with weights that no model has.
    """
    for run in (baseline, candidate):
        if run.weights not in ("as-is", "imagenet"):
            raise CertificateError(
                f"{run.source or 'the certificate'} was recorded with {run.weights} weights, with which no process "
                "computes: record it with --weights as-is."
            )
    one, two = baseline.given, candidate.given
    if baseline.inputs.info.digest == candidate.inputs.info.digest:
        return
    if one is not None and two is not None:
        if sorted(each.digest for each in one) == sorted(each.digest for each in two):
            return  # the same tensors by other names
        if len(one) != len(two):
            raise CertificateError(
                f"the two were given {len(one)} and {len(two)} tensors: they cannot be compared."
            )
        what = "; ".join(
            f"{b.name or c.name or 'input'} is {b.dtype} {b.shape} in the baseline's and {c.dtype} {c.shape} in the "
            "candidate's"
            if (b.shape, b.dtype) != (c.shape, c.dtype)
            else f"{b.name or c.name or 'input'} holds other numbers"
            for b, c in zip(one, two, strict=True)
            if b.digest != c.digest
        )
        raise CertificateError(f"the two recordings are of other inputs: {what}.")
    raise CertificateError(
        f"the two recordings are of other inputs: {baseline.inputs.info.description}, and "
        f"{candidate.inputs.info.description}."
    )


def _ran(candidate: nn.Module | str, before: Sequence[Run], inputs: Any, seed: int) -> list[Run]:
    """Passes of a copy of a live candidate on what was recorded."""
    with undisturbed():
        side = Side.of("candidate", candidate, seed)
        watch = Watch(
            copy_with(side.model, state_of(side.model), lambda tensor: tensor, role="candidate"),
            len(before),
            before[0].sample,
        )
        watch.begin()
        try:
            for run in before:
                given = given_to(run.inputs, run.kept, inputs, run.source or "the recording")
                args, kwargs = side.arguments(given, side.cell())
                training, gradients = run.mode or (False, False)
                watch.model.train(training)
                try:
                    with torch.set_grad_enabled(gradients):
                        watch.model(*args, **kwargs)
                except Exception as error:
                    raise side.failure(error, given) from error
        finally:
            watch.end()
        watch.settle()
    if watch.live is None:
        raise ModelError("the candidate could not be recorded.")
    return runs_of(watch.live)


def _verification(
    pairs: Sequence[tuple[Run, Run]],
    counts: tuple[int, int],
    found: Sequence[Between],
    protocol: Protocol,
    seed: int,
    command: str,
    started: float,
) -> Verification:
    at = next(
        (
            k
            for verdict in (Verdict.DIVERGED, Verdict.INCONCLUSIVE)
            for k, each in enumerate(found)
            if each.result.verdict is verdict
        ),
        0,
    )
    (baseline, candidate), shown = pairs[at], found[at]
    results = with_sources([shown.result], shown.alignment)
    covered = coverage(shown.alignment, (), shown.words, own_weights=True)
    differences = tuple(_differences(baseline, candidate, shown.alignment))
    return Verification(
        **concluded(protocol.policy, results, covered)._asdict(),
        baseline=baseline.model,
        candidate=candidate.model,
        weights=WeightsInfo(
            mode="as-is",
            source=baseline.source,
            parameter_map={name: each.text for name, each in shown.alignment.parameters.items()},
            kept=tuple(candidate.tensors),
        ),
        inputs=baseline.inputs.info,
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=protocol.policy.name,
        notes=tuple(_notes(baseline, candidate, counts, len(pairs), at, differences)),
        static=differences,
        certificate=CertificateInfo(
            source=baseline.source,
            digest=baseline.digest,
            created=baseline.created,
            parent=baseline.parent,
            environment=baseline.environment,
        ),
    )


def _differences(baseline: Run, candidate: Run, alignment: Alignment) -> Iterator[StaticDifference]:
    for name, assembly in alignment.parameters.items():
        twin = baseline.tensors.get(assembly.whole or "")
        own = candidate.tensors.get(name)
        if twin is None or own is None or twin.shape != own.shape:
            continue
        if twin.dtype != own.dtype:
            yield StaticDifference(
                kind="dtype",
                baseline=twin.name,
                candidate=name,
                summary=f"{own.dtype}, baseline {twin.dtype}",
            )
        elif twin.digest != own.digest:
            yield StaticDifference(
                kind="tensor", baseline=twin.name, candidate=name, summary="other values than the baseline's"
            )


def _notes(
    baseline: Run,
    candidate: Run,
    counts: tuple[int, int],
    compared: int,
    at: int,
    differences: Sequence[StaticDifference],
) -> Iterator[str]:
    yield (
        f"recordings of {baseline.model.spec} from {baseline.created} and of {candidate.model.spec} from "
        f"{candidate.created}: neither was run in float64, so that a difference below the rounding of "
        f"{candidate.cell.dtype} cannot be told from it; figures with an interval are estimates"
    )
    samples = [run.sample for run in (baseline, candidate) if run.sample is not None]
    if samples:
        yield (f"of tensors of more than {max(samples)} elements, but for outputs, only so many were read")
    if compared > 1 or max(counts) > compared:
        more = f"; recorded were {counts[0]} and {counts[1]}" if baseline.chance and candidate.chance else ""
        yield f"pass {at + 1} of {compared} that were compared is shown{more}"
    for side, run in (("baseline", baseline), ("candidate", candidate)):
        for each in run.unseen:
            yield f"not seen of the {side}: {each}"
    if baseline.mode != candidate.mode:
        yield f"training mode and gradients: {_mode(baseline)} in the baseline, {_mode(candidate)} in the candidate"
    if baseline.cell.name != candidate.cell.name:
        yield f"the baseline ran in {baseline.cell.name}, the candidate in {candidate.cell.name}"
    changed = [each.candidate or "" for each in differences if each.kind == "tensor"]
    if changed:
        more = ", ..." if changed[_SOME:] else ""
        yield (
            f"{len(changed)} of the candidate's tensors hold other values than the baseline's: "
            f"{', '.join(changed[:_SOME])}{more}"
        )
    then, now = baseline.environment.packages, candidate.environment.packages
    other = [
        f"{name} {then[name]} and {now[name]}"
        for name in ("torch", "torchvision", "transformers")
        if name in then and name in now and then[name] != now[name]
    ]
    if other:
        yield f"recorded under {'; '.join(other)}"


def _mode(run: Run) -> str:
    training, gradients = run.mode or (False, False)
    return f"{'on' if training else 'off'} and {'on' if gradients else 'off'}"
