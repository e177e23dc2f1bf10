"""Both models on inputs drawn on purpose, in float64: which of them shows what the given ones do not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from verifier.align import align
from verifier.bench.measuring import measure
from verifier.bench.oracle import stand
from verifier.bench.probes import Draw, draws
from verifier.bench.protocol import Progress, Protocol
from verifier.border.error_texts import first_line
from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE, Cell
from verifier.errors import GraphDepartureError
from verifier.graph import record
from verifier.inputs.samples import batch_size
from verifier.judge import semantics_budget
from verifier.models.casting import arguments, cast
from verifier.models.copying import copy_with, state_of
from verifier.proof.proving import proved
from verifier.records import Probe, Verdict
from verifier.weights import fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.align import Alignment, Assembly
    from verifier.bench.batched import Measured
    from verifier.bench.bench import Bench
    from verifier.bench.subject import Subject
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.judge import Policy
    from verifier.lockstep import Meeting
    from verifier.records import Comparison

_NOISY = Cell("cpu", "float32")
# What a difference must be beside the largest tensor above it: a norm of a constant makes noise of rounding.
_SPECK = 1e-11


def probing(
    bench: Bench,
    given: Inputs,
    policy: Policy,
    known: Mapping[str, Assembly | None],
    seed: int,
    progress: Progress = lambda *_: None,
) -> Iterator[Probe]:
    """Run both models on every probe.

    Args:
        bench: The two models with their proved pairs, in float64, and the samples that were compared there.
        given: All inputs that were given.
        policy: What a pair may be off by.
        known: What is known of the parameter map, should a probe need pairs of its own.
        seed: For numbers that are drawn.
        progress: Told how far this has come.
    """
    every = list(draws(given, seed, batch_size(bench.inputs)))
    for number, draw in enumerate(every):
        progress("probes", number, len(every))
        yield _probed(bench.at(inputs=draw.inputs), draw, policy, known)
    progress("probes", len(every), len(every))


def probing_otherwise(
    bench: Bench, doubtful: Sequence[Draw], policy: Policy, known: Mapping[str, Assembly | None]
) -> tuple[Probe, ...]:
    """Run both models on what one of them does otherwise with; as `probing` does."""
    return tuple(_probed(bench.at(inputs=each.inputs), each, policy, known) for each in doubtful)


def _probed(bench: Bench, draw: Draw, policy: Policy, known: Mapping[str, Assembly | None]) -> Probe:
    if draw.training:
        subject = bench.subject
        bench = bench.at(
            subject=replace(
                subject, baseline=_in_training(subject.baseline), candidate=_in_training(subject.candidate)
            )
        )
    try:
        baseline = _recorded(bench, "baseline")
    except BaseException as error:
        check_unanswered(error)
        return _skipped(draw, f"the baseline does not take it: {first_line(error)}")
    try:
        candidate = _recorded(bench, "candidate").with_outputs_like(baseline)
    except BaseException as error:
        check_unanswered(error)
        said = f"the candidate does not take it, the baseline does: {first_line(error)}"
        return _skipped(draw, said) if draw.resized else _diverged(draw, reason=said)
    try:
        bench = bench.at(subject=_aligned(bench, baseline, candidate, known))
        measured = measure(bench, [bench.inputs], forced=False)
    except GraphDepartureError as error:
        return _skipped(draw, str(error))
    except Exception as error:
        return _skipped(draw, f"the two could not be compared: {first_line(error)}")
    found = _judged(bench, draw, measured, policy)
    if found.verdict is Verdict.DIVERGED and any(graph.draws for graph in (baseline, candidate)):
        return _skipped(draw, "a model draws random numbers, and two models need not draw the same ones")
    return found


def _recorded(bench: Bench, side: str) -> Graph:
    """One model's graph on other inputs, in float64, with the tensors it computes with."""
    state = bench.caster.state(bench.masters(side), ORACLE)
    copy = copy_with(getattr(bench.subject, side), state, lambda tensor: cast(tensor, ORACLE), role=side)
    args, kwargs = arguments(bench.given(side), ORACLE)
    return record(copy, args, kwargs)


def _aligned(
    bench: Bench, baseline: Graph, candidate: Graph, known: Mapping[str, Assembly | None]
) -> Subject:
    """The subject with the graphs of these inputs: with its pairs if both do what they did, else with new ones."""
    subject, old = bench.subject, bench.alignment
    if baseline.calls == old.baseline.calls and candidate.calls == old.candidate.calls:
        return replace(subject, alignment=replace(old, baseline=baseline, candidate=candidate))
    states = fingerprints(state_of(subject.baseline)), fingerprints(state_of(subject.candidate))
    alignment = _without(align(baseline, candidate, states, known), old)
    # The tensors are shared out already; recipes of other pairs say nothing new.
    alignment = replace(alignment, parameters=old.parameters, choices=())
    found = replace(subject, alignment=alignment)
    return proved(bench.at(subject=found)).subject if alignment.rebuilt else found


def _without(alignment: Alignment, old: Alignment) -> Alignment:
    """The alignment without pairs of sites that both were left alone on the inputs that were given."""
    open_sites = {
        side: {graph.sites[each.site].name for each in old.unmatched if each.side == side}
        for side, graph in (("baseline", old.baseline), ("candidate", old.candidate))
    }
    wrong = [
        pair
        for pair in alignment.pairs
        if alignment.baseline.sites[pair.baseline].name in open_sites["baseline"]
        and alignment.candidate.sites[pair.candidate].name in open_sites["candidate"]
    ]
    return alignment.repaired(wrong, (), "left alone on the given inputs") if wrong else alignment


def _in_training(model: nn.Module) -> nn.Module:
    """A copy in training mode, but for what draws random numbers there."""
    copy = copy_with(model, state_of(model), lambda tensor: tensor, role="model").train()
    for module in copy.modules():
        drops = isinstance(module, nn.modules.dropout._DropoutNd) or (
            not type(module).__module__.startswith("torch.nn.")
            and any(isinstance(getattr(module, name, None), float) for name in ("p", "drop_prob"))
        )
        if drops:
            module.eval()
    return copy


def _judged(bench: Bench, draw: Draw, measured: Measured, policy: Policy) -> Probe:
    subject, alignment = bench.subject, bench.alignment
    if len(alignment.baseline.outputs) != len(alignment.candidate.outputs):
        return _diverged(draw, reason="the two return different numbers of tensors")
    free = measured.free
    assert free is not None  # noqa: S101 - it was asked for
    met = [*free.pairs, *free.outputs, *free.states]
    names = _names(alignment, subject, len(free.outputs))
    errors = [meeting.error for meeting in met]
    if not any(error is None or error.elements > error.nonfinite_baseline for error in errors):
        return _skipped(draw, "the baseline gives no finite number")
    suspects = _beyond(met, errors, [policy.semantics] * len(met))
    limits = [policy.semantics] * len(met)
    if suspects:  # how much the network amplifies rounding is only measured where that matters
        limits = _limits(bench, policy, len(met))
        suspects = _beyond(met, errors, limits)
    if not suspects:
        return Probe(name=draw.name, verdict=Verdict.MATCH)
    first = suspects[0]
    error = errors[first]
    if error is None:
        shapes = f"shape {met[first].other_shape} instead of {met[first].shape}"
        return _diverged(draw, site=names[first], reason=shapes)
    return Probe(
        name=draw.name,
        verdict=Verdict.DIVERGED,
        site=names[first],
        error=error.nrmse,
        allowed=limits[first],
    )


def _beyond(met: list[Meeting], errors: list[Comparison | None], limits: list[float]) -> list[int]:
    """Which meetings are beyond their limit, by position."""
    found: list[int] = []
    largest = 0.0
    for k, (meeting, error, limit) in enumerate(zip(met, errors, limits, strict=True)):
        if error is None:
            if meeting.shape != meeting.other_shape:
                found.append(k)
            continue
        off = math.sqrt(error.mse) if error.mse >= 0 else math.inf
        largest = max(largest, _size(meeting))
        if not error.within(limit) and (error.nonfinite_mismatched or not off <= _SPECK * largest):
            found.append(k)
    return found


def _size(meeting: Meeting) -> float:
    """The root mean square of the baseline's tensor."""
    moments = meeting.moments
    if moments is None or not moments.finite or not math.isfinite(moments.raw_aa):
        return 0.0
    return math.sqrt(moments.raw_aa / moments.finite)


def _limits(bench: Bench, policy: Policy, count: int) -> list[float]:
    """What every meeting may be off by: the baseline's own rounding noise says how much rounding is amplified."""
    try:
        found = stand(bench.at(cell=_NOISY), Protocol(localise="never")).accuracies
    except Exception:  # float32 is not what the probe is about
        return [policy.semantics] * count
    noise = [each.baseline_total for each in found]
    known = [value if value is not None and math.isfinite(value) else 0.0 for value in noise]
    return [semantics_budget(policy, value / _NOISY.unit_roundoff).total for value in known]


def _names(alignment: Alignment, subject: Subject, outputs: int) -> list[str]:
    sites = alignment.baseline.sites
    returned = ["output"] if outputs == 1 else [f"output{k}" for k in range(outputs)]
    return [
        *(sites[pair.baseline].name for pair in alignment.pairs),
        *returned,
        *(state.baseline for state in subject.states),
    ]


def _skipped(draw: Draw, reason: str) -> Probe:
    return Probe(name=draw.name, verdict=Verdict.SKIPPED, reason=reason)


def _diverged(draw: Draw, *, site: str | None = None, reason: str) -> Probe:
    return Probe(name=draw.name, verdict=Verdict.DIVERGED, site=site, reason=reason)
