"""The verification itself, from two models to a verdict."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import nn

from verifier.align import align
from verifier.bench.assessment import LOCALISE, Assessor, Progress, skipped
from verifier.bench.exercise import exercise
from verifier.bench.intact import intact
from verifier.bench.progressive import progressive
from verifier.bench.running import ORACLE, Caster, Subject, batches, sample
from verifier.bench.running import batch_size as batch_size_of
from verifier.bench.side import Side
from verifier.border.depth import room_for
from verifier.border.garbage import collecting_seldom
from verifier.border.programs import contained
from verifier.diagnose import HARMLESS, flag_differences, static_differences
from verifier.environment import TF32_FLAGS, describe, preserved, tf32_allowed
from verifier.errors import GraphDepartureError, InputError, UsageError
from verifier.inputs import given as making
from verifier.judge import (
    STRICT,
    Cell,
    Policy,
    Request,
    coverage,
    evaluate,
    main_cell,
    missing_here,
    overall,
    with_probes,
)
from verifier.models.copying import state_of
from verifier.proof.proving import proved
from verifier.records import Verdict
from verifier.storage.saving import Verification
from verifier.weights import Masters, choose, fingerprints, resolve
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.inputs import Inputs
    from verifier.records import CellResult, StaticDifference, Step

# Enough samples for a fault that mixes them to show, few enough for float64 to be quick.
SEMANTIC_SAMPLES = 2

GRANULARITIES = ("site", "block")
OUTPUTS = ("by-name", "by-order")


@contained(exceptions=True)
def verify(
    baseline: nn.Module | str,
    candidate: nn.Module | str,
    inputs: Any,
    *,
    candidate_inputs: Any = None,
    weights: str = "transfer",
    parameter_map: Mapping[str, object] | None = None,
    cells: Sequence[str | Cell | Request] = ("cpu/float32",),
    granularity: str = "site",
    localise: bool | str = True,
    semantics: bool = True,
    policy: Policy = STRICT,
    batch_size: int | None = None,
    repeat: int = 1,
    outputs: str = "by-name",
    probe: bool = False,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> Verification:
    """Is `candidate` the same function as `baseline`, and if not, where do they part?

    Neither model is run, hooked or written to: copies are, and process-wide state (random states, default
    dtype, grad mode, backend flags) is as before afterwards, also after an exception.

    Args:
        baseline: The trusted model, or a specification that leads to one (`torchvision:resnet50`).
        candidate: The model under test, likewise.
        inputs: A tensor, a tuple of positional arguments, a dict of keyword arguments, or `Inputs`.
        candidate_inputs: What the candidate is given where it is prepared otherwise, in the same forms and of the
            same structure; None for the same. Its sites are then judged on the baseline's inputs.
        weights: `transfer` (both compute with the baseline's tensors), `as-is` (each with its own),
            `calibrated`, `init`, `imagenet`, or a weights file; see `verifier.weights.choose`.
        parameter_map: Which of the baseline's tensors some of the candidate's are made of, where that cannot be
            found or was found wrong: names or patterns as in a map file, see `verifier.weights.maps`.
        cells: Settings to compare in: device, dtype and, where wanted, memory format and autocast, such as
            `cuda/bfloat16/channels_last` (`verifier.judge.Cell`). Those this machine cannot run are skipped.
        granularity: `site`, or `block` to verify each block alone on the baseline's inputs first, then the stages;
            see `verifier.bench.progressive`.
        localise: When to run forced passes, which tell culprits from pairs that only inherit: `auto` or True
            (in float64 always, elsewhere if something diverged), `always`, or `never` or False.
        semantics: Whether to compare in float64 on a few samples first, where any difference is real.
        policy: What a pair may be off by.
        batch_size: Samples that go through the models at once; None for all of them.
        repeat: How often to run each cell to see whether the models give the same numbers every time.
        outputs: How what they return is paired: `by-name` (in order where one of them names nothing; other names
            are no match), or `by-order`, whatever it is called.
        probe: Whether to run both models on further inputs that are drawn on purpose (other sizes, scales, signs,
            training mode) as well; see `verifier.bench.probes`.
        seed: For models built from a specification and for weights that are drawn.
        command: How the run was asked for, for the record.
        progress: Told how far the run has come.

    Raises:
        UsageError: Something asked for is wrong: a specification, the inputs, a weights file, a cell.
        CannotRunError: This machine cannot run it, or a model raised while it ran.
    """
    started = time.perf_counter()
    lowered = tf32_allowed()
    _check("granularity", granularity, GRANULARITIES)
    _check("outputs", outputs, OUTPUTS)
    requests = _requests(cells)
    missing = missing_here(requests)
    wanted = [request.cell for request in requests if request.cell not in missing]
    typical = next((cell for cell in wanted if cell != ORACLE), Cell("cpu", "float32"))
    given = making.paired(making.tensors(inputs), candidate_inputs)
    models = {"baseline": baseline, "candidate": candidate}
    with (
        preserved(),
        collecting_seldom(),
        _plainly(),
        intact(models, given) as kept,
        contextlib.ExitStack() as opened,
    ):
        ours, theirs = Side.of("baseline", baseline, seed), Side.of("candidate", candidate, seed)
        opened.enter_context(room_for(ours.model, theirs.model))
        known = resolve(parameter_map or {}, ours.shapes(), theirs.shapes())
        steps: list[Step] = []

        def compare(few: Inputs) -> tuple[Assessor, tuple[StaticDifference, ...], list[CellResult]]:
            recorded = ours.record(few)
            alignment = align(
                recorded,
                theirs.record(few.other or few).with_outputs_like(recorded),
                (fingerprints(state_of(ours.model)), fingerprints(state_of(theirs.model))),
                known,
            )
            masters = choose(
                weights,
                ours.model,
                theirs.model,
                alignment,
                ours.arguments(few),
                given=known,
                baseline_spec=ours.spec,
                seed=seed,
            )
            static = (
                *flag_differences(ours.flags, theirs.flags),
                *static_differences(alignment, masters.baseline, masters.candidate, masters.recipes),
            )
            subject = Subject(ours.model, theirs.model, alignment, masters)
            if alignment.rebuilt:
                subject = proved(subject, few, Caster())
            if granularity == "block":
                steps[:] = progressive(subject, few, Caster(), policy)
            parts = batches(given, batch_size)
            assessor = Assessor(
                subject,
                parts,
                few,
                policy,
                _localise(localise),
                progress or (lambda *_: None),
                repeat,
                by_order=outputs == "by-order",
            )
            exactly = None
            if semantics or ORACLE in wanted:
                exactly = assessor.semantics(
                    parts if ORACLE in wanted else [few], typical, alone={*wanted} <= {ORACLE}
                )
            results = [*([exactly] if exactly else []), *_numerics(assessor, requests, missing, exactly)]
            return assessor, static, results

        few = sample(given, SEMANTIC_SAMPLES)
        compared = None
        # A model may depend on how many samples there are, and the first dimension need not be the batch.
        with contextlib.suppress(GraphDepartureError, InputError):
            compared = compare(few)
        if compared is None or (
            _sample_counts_differ(compared[2]) and batch_size_of(few) != batch_size_of(given)
        ):
            compared = compare(given)
        assessor, static, results = compared
        probes = tuple(assessor.probes(given, known, seed)) if probe else ()

    alignment = assessor.subject.alignment  # without the pairs that numbers have disproved
    masters = assessor.subject.masters
    main = main_cell(results)
    output = main.output
    criteria = evaluate(policy, output, main.layers, results)
    covered = coverage(alignment, masters.info.unexercised, _returned(assessor))
    verdict, reason = overall(policy, results, criteria, covered)
    verdict, reason = with_probes(policy, verdict, reason, probes)
    deciding = next((result for result in results if result.verdict is Verdict.DIVERGED), None)
    hasher = Hasher()
    return Verification(
        verdict=verdict,
        reason=reason,
        criteria=criteria,
        coverage=covered,
        first_divergence=deciding.first_divergence if deciding else None,
        culprits=deciding.culprits if deciding else (),
        cells=tuple(results),
        output=output,
        baseline=ours.info(alignment.baseline),
        candidate=theirs.info(alignment.candidate),
        weights=msgspec.structs.replace(
            masters.info,
            baseline_digest=hasher.of_all(masters.baseline.items()),
            candidate_digest=hasher.of_all(masters.candidate.items()),
        ),
        inputs=msgspec.structs.replace(given.info, digest=hasher.of_all(making.named(given))),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=policy.name,
        notes=(
            *ours.notes,
            *theirs.notes,
            *_tf32_notes(ours, theirs, on=lowered),
            *_noted(assessor),
            *_by_order(alignment, outputs),
            *_overwritten(alignment),
            *kept.notes,
            *_notes(masters, static),
        ),
        static=static,
        steps=tuple(steps),
        preprocessing=given.preprocessing,
        exercise=exercise(assessor.subject, static, results, assessor.tried, given, assessor.batches),
        probes=probes,
    )


def _numerics(
    assessor: Assessor, requests: Iterable[Request], missing: Mapping[Cell, str], exactly: CellResult | None
) -> Iterator[CellResult]:
    """Every other cell that was asked for; `exactly` is the one in float64, if there is one."""
    verdict = None if exactly is None else exactly.verdict
    for cell, named in requests:
        if cell in missing:
            yield skipped(cell, missing[cell], named=named)
        elif cell != ORACLE:
            yield assessor.numerics(
                cell,
                suspicious=verdict is Verdict.DIVERGED,
                same_program=verdict is Verdict.MATCH,
                named=named,
            )


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """Without the modes a caller may be in."""
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


def _overwritten(alignment: Alignment) -> tuple[str, ...]:
    return tuple(
        f"the {side} overwrites the inputs it is given"
        for side, graph in (("baseline", alignment.baseline), ("candidate", alignment.candidate))
        if graph.writes_inputs
    )


def _returned(assessor: Assessor) -> tuple[str, ...]:
    """How what the two return differs that is no number: a few sentences, each once."""
    said = [each for calls in assessor.calls.values() for each in calls.differences]
    return tuple(dict.fromkeys([*said, *assessor.words]))[:_SOME]


def _by_order(alignment: Alignment, outputs: str) -> tuple[str, ...]:
    """Which names were taken for the same."""
    names = alignment.baseline.output_names, alignment.candidate.output_names
    if outputs != "by-order" or names[0] == names[1]:
        return ()
    same = [f"{one or 'the output'} = {two or 'the output'}" for one, two in zip(*names, strict=False)]
    return (f"outputs are compared in their order: {_some(same)}",)


def _noted(assessor: Assessor) -> tuple[str, ...]:
    """What bare calls have shown in any cell, each thing once."""
    return tuple(dict.fromkeys(note for calls in assessor.calls.values() for note in calls.notes))


def _tf32_notes(ours: Side, theirs: Side, *, on: bool) -> tuple[str, ...]:
    """Who lowered the precision of float32 products for the whole process, if anybody did."""
    who = [
        f"building the {side.role}"
        for side in (ours, theirs)
        if any(name in TF32_FLAGS and new in {"on", "high", "medium"} for name, _, new in side.flags)
    ]
    if on:
        who.append("something that ran before the comparison")
    return tuple(
        f"{each} allowed TF32 for float32 matrix products on CUDA, in the whole process; here it is off but in cells "
        "of dtype tf32"
        for each in who
    )


def _notes(masters: Masters, static: Iterable[StaticDifference]) -> tuple[str, ...]:
    """What a reader should know about the weights before believing a divergence."""
    silent = [each.candidate for each in static if each.candidate and each.summary.endswith(HARMLESS)]
    found: tuple[str, ...] = ()
    if silent:
        found = (
            f"a structural difference that is harmless: the candidate has {len(silent)} tensors that the baseline "
            f"does not have, biases of 0 or gains of 1: {_some(silent)}",
        )
    lost = [name for name in masters.info.unmapped_candidate if name not in silent]
    if masters.info.mode == "as-is" or not lost:
        return found
    return (
        *found,
        f"{len(lost)} of the candidate's tensors have no partner in the baseline and kept values of their own: "
        f"{_some(lost)}. If they have one, name it with --map",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SOME]) + (", ..." if len(names) > _SOME else "")


_SOME = 3


def _sample_counts_differ(results: Iterable[CellResult]) -> bool:
    """Whether the two models have given different numbers of samples anywhere."""
    return any(
        row.candidate_shape is not None and row.candidate_shape[:1] != row.shape[:1]
        for result in results
        for row in result.layers
    )


def _check(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{what} is {value!r}; known are {', '.join(known)}.")


def _localise(value: bool | str) -> str:
    mode = ("auto" if value else "never") if isinstance(value, bool) else value
    _check("localise", mode, LOCALISE)
    return mode


def _requests(cells: Sequence[str | Cell | Request]) -> list[Request]:
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
    return list(found.values())
