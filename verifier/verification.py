"""The verification itself, from two models to a verdict."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import nn

from verifier.bench.as_given import as_given
from verifier.bench.at_once import samples_at_once
from verifier.bench.comparing import Compared, Terms
from verifier.bench.deployed import in_cells, staged, unsuited, weighed
from verifier.bench.exercise import exercise
from verifier.bench.intact import intact
from verifier.bench.kernels import with_kernels
from verifier.bench.notes import notes, returned_otherwise
from verifier.bench.probing import probing, probing_otherwise
from verifier.bench.protocol import LOCALISE, Progress, Protocol, silent
from verifier.bench.reproducing import reproduced
from verifier.bench.sampled import on_samples
from verifier.bench.side import Side
from verifier.bench.specialised import other_ways, specialised
from verifier.border.depth import room_for
from verifier.border.garbage import collecting_seldom
from verifier.border.programs import contained
from verifier.cells import Cell, Request, missing_here
from verifier.environment import describe, preserved, tf32_allowed
from verifier.errors import UsageError
from verifier.estimate import told_ahead
from verifier.forms.loading import is_file
from verifier.inputs import Stream, headed, informed
from verifier.inputs.samples import batches
from verifier.judge import STRICT, Policy, concluded, coverage, with_sources
from verifier.lockstep import pages_held
from verifier.models.compiled import interpreted
from verifier.models.memos import unmemoised
from verifier.quantised.apart import taken_apart
from verifier.quantised.cost import cost
from verifier.ranks import ranks
from verifier.storage.repros import with_repros
from verifier.storage.saving import Verification, check_writable
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.certificates.certificate import Certificate
    from verifier.certificates.live import Live
    from verifier.forms.loading import Deployed
    from verifier.inputs import Inputs
    from verifier.records import Coverage, WeightsInfo
    from verifier.weights import Masters

GRANULARITIES = ("site", "block")
OUTPUTS = ("by-name", "by-order")


@contained(exceptions=True)
def verify(
    baseline: nn.Module | str | Certificate | Live | Path | Deployed,
    candidate: nn.Module | str | Certificate | Live | Path | Deployed,
    inputs: Any = None,
    *,
    candidate_inputs: Any = None,
    weights: str = "transfer",
    parameter_map: Mapping[str, object] | None = None,
    cells: Sequence[str | Cell | Request] = ("cpu/float32",),
    granularity: str = "site",
    localise: bool | str = True,
    semantics: bool = True,
    policy: Policy | str = STRICT,
    batch_size: int | None = None,
    batch_dim: int | None = 0,
    repeat: int = 1,
    outputs: str = "by-name",
    probe: bool = False,
    keep_float_budget: str | None = None,
    repro: str | Path | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
    sharded: bool | None = None,
) -> Verification:
    """Is `candidate` the same function as `baseline`, and if not, where do they part?

    Neither model is run, hooked or written to: copies are, and process-wide state (random states, default
    dtype, grad mode, backend flags) is as before afterwards, also after an exception.

    Args:
        baseline: The trusted model, a specification that leads to one (`torchvision:resnet50`), or a recording of
            one: a certificate (`verifier.record`), passes of a process (`verifier.recording`), or their file, or
            tensors that another program has dumped: a folder, a `.zip`, a `.npz`, `.npy` or `.safetensors` file.
            Or a deployed form of one: an exported program or its `.pt2` file, an ONNX model or its file, a
            `verifier.forms.form.Form` of the caller's own.
        candidate: The model under test, likewise; a recording only if the baseline is one.
        inputs: A tensor, a tuple of positional arguments, a dict of keyword arguments, or `Inputs`; None where a
            certificate holds them, or how they are made. Or a `Stream` of many samples, batch by batch.
        candidate_inputs: What the candidate is given where it is prepared otherwise, in the same forms and of the
            same structure; None for the same. Its sites are then judged on the baseline's inputs.
        weights: `transfer` (both compute with the baseline's tensors), `as-is` (each with its own),
            `calibrated`, `init`, `imagenet`, or a weights file; see `verifier.weights.choose`. A form that has
            weights of its own keeps them.
        parameter_map: Which of the baseline's tensors some of the candidate's are made of, where that cannot be
            found or was found wrong: names or patterns as in a map file, see `verifier.weights.maps`.
        cells: Settings to compare in: device, dtype and, where wanted, memory format and autocast, such as
            `cuda/bfloat16/channels_last` (`verifier.cells.Cell`). Those this machine cannot run are skipped.
        granularity: `site`, or `block` to verify each block alone on the baseline's inputs first, then the stages;
            see `verifier.bench.progressive`.
        localise: When to run forced passes, which tell culprits from pairs that only inherit: `auto` or True
            (in float64 always, elsewhere if something diverged), `always`, or `never` or False.
        semantics: Whether to compare in float64 on a few samples first, where any difference is real.
        policy: What a pair may be off by; or as `--policy` takes it, by name or from a file.
        batch_size: Samples that go through the models at once; None for all of them.
        batch_dim: The dimension of the first input along which samples lie; None where none can be run alone. Whether
            a few of them stand for all is tried.
        repeat: How often to run each cell to see whether the models give the same numbers every time.
        outputs: How what they return is paired: `by-name` (in order where one of them names nothing; other names
            are no match), or `by-order`, whatever it is called.
        probe: Whether to run both models on further inputs that are drawn on purpose (other sizes, scales, signs,
            training mode) as well; see `verifier.bench.probes`.
        keep_float_budget: Of a quantised candidate, what may change, to find the smallest set of layers to keep in
            float for that: `0.1%` (of the samples, their highest class) or `error=1%` (of the outputs, NRMSE).
        repro: A directory for scripts that show each culprit with torch alone, if the models diverge; notes say
            what was written there (see `verifier.diagnose.repros`).
        seed: For models built from a specification and for weights that are drawn.
        command: How the run was asked for, for the record.
        progress: Told how far the run has come.
        sharded: Whether the processes of torchrun hold the candidate between them; None for as DTensors say.

    Raises:
        UsageError: Something asked for is wrong: a specification, the inputs, a weights file, a cell.
        CannotRunError: This machine cannot run it, or a model raised while it ran.
    """
    started = time.perf_counter()
    lowered = tf32_allowed()
    by_block = _check("granularity", granularity, GRANULARITIES) == "block"
    protocol = _protocol(policy, localise, repeat, outputs, progress)
    requests = _requests(cells)
    if repro is not None:
        check_writable(repro)
    asked: dict[str, Any] = {
        "weights": weights,
        "parameter_map": parameter_map,
        "protocol": protocol,
        "seed": seed,
        "command": command,
        "needing": _needing((inputs, candidate_inputs), by_block, protocol, probe, repro, keep_float_budget),
    }
    if answer := _without_sides((baseline, candidate, inputs), requests, asked, (sharded, semantics)):
        return answer
    given, stream = headed(inputs, batch_dim, candidate_inputs)
    with _undisturbed(), intact({"baseline": baseline, "candidate": candidate}, given) as kept:
        sides, batch_size = samples_at_once(_sides(baseline, candidate, seed), given, stream, batch_size)
        sides, taken = taken_apart(sides, given, batch_size, keep_float_budget, weights)
        weights, known = weighed(weights, parameter_map or {}, sides)
        missing = missing_here(requests) | unsuited(requests, sides)
        terms = Terms(
            requests, missing, weights, known, seed, by_block, semantics, batch_size, protocol, stream
        )
        with room_for(*(side.model for side in sides)):
            found = _compared(sides, given, terms)
            results = staged(with_sources(found.results, found.bench.alignment), sides, found.ways)
            priced = cost(taken, found, results, batches(given, batch_size))
            probes = probing_otherwise(found.bench, found.doubtful, protocol.policy, known)
            if probe:
                probes += tuple(probing(found.bench, given, protocol.policy, known, seed, protocol.progress))
            scripts = reproduced(found.bench, results) if repro is not None else None
    alignment, masters, hasher = found.bench.alignment, found.bench.subject.masters, Hasher()
    verification = Verification(
        **concluded(protocol.policy, priced.results, _covered(found), probes)._asdict(),
        baseline=sides[0].info(alignment.baseline),
        candidate=sides[1].info(alignment.candidate),
        weights=_digested(masters, hasher),
        inputs=informed(given, stream, hasher),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=protocol.policy.name,
        notes=(
            *notes(sides, found, kept.notes, lowered=lowered, by_order=protocol.by_order),
            *priced.notes,
        ),
        static=found.static,
        steps=found.steps,
        preprocessing=given.preprocessing,
        exercise=exercise(found, given),
        probes=probes,
        stages=with_kernels(priced.stages, sides, (alignment.baseline, alignment.candidate)),
        quantisation=priced.quantisation,
    )
    return verification if repro is None or scripts is None else with_repros(verification, scripts, repro)


def _protocol(
    policy: Policy | str, localise: bool | str, repeat: int, outputs: str, progress: Progress | None
) -> Protocol:
    policy = Policy.load(policy) if isinstance(policy, str) else policy
    by_order = _check("outputs", outputs, OUTPUTS) == "by-order"
    return Protocol(policy, _localise(localise), repeat, by_order, progress or silent, told_ahead)


def _sides(baseline: Any, candidate: Any, seed: int) -> tuple[Side, Side]:
    known = ("baseline", baseline), ("candidate", candidate)
    one, two = (Side.of(role, model, seed, apart=True) for role, model in known)
    return one, two


def _covered(found: Compared) -> Coverage:
    masters = found.bench.subject.masters
    return coverage(
        found.bench.alignment,
        found.silent,
        returned_otherwise(found),
        found.read,
        own_weights=masters.info.mode == "as-is",
        resized=masters.resized,
    )


def _without_sides(
    given: tuple[Any, Any, Any], requests: Any, asked: Mapping[str, Any], parts: tuple[Any, bool]
) -> Verification | None:
    """The verification where a recording or a dump is a side, or processes hold parts of one; None for two models."""
    if parts[0] or (parts[0] is None and ranks().size > 1):
        from verifier.sharded.verifying import verified_sharded as joined  # noqa: PLC0415

        if found := joined(*given, requests=requests, semantics=parts[1], seen=parts[0] is None, **asked):
            return found
        if parts[0] is None:
            from verifier.sharded.talking import refuse_talking  # noqa: PLC0415

            refuse_talking(*given[1:], asked["seed"])
    baseline, candidate, inputs = given
    if not any(map(_may_be_recorded, (baseline, candidate))):
        return None  # two models do without the rooms below
    from verifier.certificates.both_recorded import are_recorded, recordings_verified  # noqa: PLC0415
    from verifier.certificates.verifying import is_certificate, verified_with  # noqa: PLC0415
    from verifier.dumps.verifying import is_dump, verified_with_dump  # noqa: PLC0415

    if are_recorded(baseline, candidate):
        return recordings_verified(baseline, candidate, inputs, **asked)
    if is_dump(baseline):
        return verified_with_dump(baseline, candidate, inputs, requests=requests, **asked)
    if is_certificate(baseline):
        return verified_with(baseline, candidate, inputs, requests=requests, **asked)
    return None


def _may_be_recorded(given: Any) -> bool:
    """Whether it is anything but a model or what only names one: recordings and dumps are objects and paths."""
    if isinstance(given, str | Path) and is_file(str(given)):
        return False
    if isinstance(given, str):
        return ":" not in given or given.lower().endswith(".safetensors")
    return not isinstance(given, nn.Module)


def _needing(
    given: tuple[Any, Any], blocks: bool, protocol: Protocol, probe: object, repro: object, kept: object
) -> dict[str, bool]:
    """Of what only a live baseline can give, whether it was asked for."""
    return {
        "--candidate-input": given[1] is not None,
        "--data": isinstance(given[0], Stream),
        "--granularity block": blocks,
        "--localise always": protocol.localise == "always",
        "--repeat": protocol.repeat > 1,
        "--probe": bool(probe),
        "--repro": repro is not None,
        "--keep-float-budget": kept is not None,
    }


def _compared(sides: tuple[Side, Side], given: Inputs, terms: Terms) -> Compared:
    """Both models as they were given, run once; then the comparison of their programs.

    What a compiler makes of a program comes last, of the tensors and in the cells that were compared.
    """
    parts = terms.parts(given)
    asked = (sides[0], parts), (sides[1], [part.other or part for part in parts])
    runs = [as_given(*each) for each in asked if not each[0].recompiled]
    with interpreted(), unmemoised(*(side.model for side in sides)):
        found = on_samples(sides, given, terms)
    masters = found.bench.subject.masters
    cells = [request.cell for request in terms.requests if request.cell not in terms.missing]
    for (side, own), state in zip(asked, (masters.baseline, masters.candidate), strict=True):
        if side.recompiled:
            runs += in_cells(side, state, cells, own)
    odd, graphs = specialised(sides, given), (found.bench.alignment.baseline, found.bench.alignment.candidate)
    ways = tuple(other_ways(sides, graphs, given, terms.seed, apart=found.diverged))
    return replace(
        found,
        runs=tuple(runs),
        notes=(*found.notes, *odd.notes),
        doubtful=(*found.doubtful, *odd.draws, *(() if found.diverged else (way.draw for way in ways))),
        ways=ways,
    )


def _digested(masters: Masters, hasher: Hasher) -> WeightsInfo:
    """What is said of the weights, with the names of what they hold."""
    return msgspec.structs.replace(
        masters.info,
        baseline_digest=hasher.of_all(masters.baseline.items()),
        candidate_digest=hasher.of_all(masters.candidate.items()),
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the modes a caller may be in, and with process-wide state put back."""
    with preserved(), collecting_seldom(), pages_held(), torch.inference_mode(mode=False), torch.no_grad():
        yield


def _check(what: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise UsageError(f"{what} is {value!r}; known are {', '.join(known)}.")
    return value


def _localise(value: bool | str) -> str:
    mode = ("auto" if value else "never") if isinstance(value, bool) else value
    return _check("localise", mode, LOCALISE)


def _requests(cells: Sequence[str | Cell | Request]) -> tuple[Request, ...]:
    found: dict[Cell, Request] = {}
    for each in cells:
        request = (
            each
            if isinstance(each, Request)
            else Request(Cell.parse(each) if isinstance(each, str) else each)
        )
        found.setdefault(request.cell, request)
    if not found:
        raise UsageError("no cell was asked for: name at least one, such as cpu/float32.")
    return tuple(found.values())
