"""Two models become a subject: recorded, aligned, given tensors, and their pairs proved by numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.align import align
from verifier.bench.bench import Bench
from verifier.bench.rounded import with_unrounded
from verifier.bench.subject import SIDES, Subject
from verifier.judge import STRICT, PairErrors, bare_rows, semantics_budget
from verifier.models.copying import state_of
from verifier.proof.proving import proved
from verifier.proof.stored import tables
from verifier.weights import choose, fingerprints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.align import Assembly
    from verifier.bench.side import Side
    from verifier.cells import Cell
    from verifier.graph import Graph
    from verifier.inputs import Inputs


def pair(
    baseline: Side,
    candidate: Side,
    inputs: Inputs,
    *,
    weights: str,
    known: Mapping[str, Assembly | None],
    seed: int = 0,
    cell: Cell | None = None,
    graphs: tuple[Graph, Graph] | None = None,
    proof: bool = True,
    anew: bool = False,
) -> Subject:
    """Which sites and tensors of two models belong together, and what both compute with.

    Args:
        baseline: The trusted model.
        candidate: The model under test.
        inputs: What both are recorded on and their pairs proved with; a few samples.
        weights: Where the tensors come from, see `verifier.weights.choose`.
        known: What is known of the parameter map (`verifier.weights.resolve`).
        seed: For weights that are drawn.
        cell: Where both are recorded in training mode; None to record each as it is given.
        graphs: What both do with `inputs`, where that is known already.
        proof: Whether what structure claims is proved by numbers.
        anew: Whether both are recorded again with the tensors they are compared with, since what they do depends on
            their numbers.

    Raises:
        InputError: The baseline does not take the inputs.
        ModelError: The candidate fails on what the baseline takes.
    """
    if graphs is None:
        graphs = baseline.record(inputs, cell), candidate.record(inputs.other or inputs, cell)
    marks = fingerprints(state_of(baseline.model)), fingerprints(state_of(candidate.model))
    alignment = align(graphs[0], graphs[1].with_outputs_like(graphs[0]), marks, known)
    masters = choose(
        weights,
        baseline.model,
        candidate.model,
        alignment,
        baseline.arguments(inputs, cell),
        given=known,
        baseline_spec=baseline.spec,
        seed=seed,
    )
    subject = Subject(baseline.model, candidate.model, alignment, masters)
    if anew and weights != "as-is":
        subject = recorded_again(subject, (baseline, candidate), inputs, known)
    return prove(subject, inputs) if proof else subject


def recorded_again(
    subject: Subject,
    sides: tuple[Side, Side],
    inputs: Inputs,
    known: Mapping[str, Assembly | None],
    cell: Cell | None = None,
) -> Subject:
    """The subject as its models run on `inputs` with the tensors they are compared with, in a `cell` if one is given.

    Raises:
        ModelError: One of them fails there.
    """
    baseline, candidate = sides
    masters = subject.masters
    first = baseline.record(inputs, cell, masters.baseline)
    second = candidate.record(inputs.other or inputs, cell, masters.candidate)
    marks = fingerprints(state_of(baseline.model)), fingerprints(state_of(candidate.model))
    alignment = align(first, second.with_outputs_like(first), marks, {**known, **masters.assemblies})
    before = subject.alignment.baseline, subject.alignment.candidate
    other = any(_steps(one) != _steps(two) for one, two in zip(before, (first, second), strict=True))
    return replace(subject, alignment=alignment, rerouted=other)


def _steps(graph: Graph) -> list[str]:
    return [call.op for call in graph.calls]


def prove(subject: Subject, inputs: Inputs) -> Subject:
    """The subject with its pairs proved on `inputs`, where its models are built from different operators.

    What pairs are apart then tells which of their weights are the roundings of others.
    """
    subject = subject.with_exact(dict(zip(SIDES, tables(Bench(subject, inputs)), strict=True)))
    if not subject.alignment.rebuilt:
        return subject
    subject, apart = proved(Bench(subject, inputs))
    if not apart:
        return subject
    alignment = subject.alignment
    errors = [
        PairErrors(
            shape=alignment.baseline.sites[pair.baseline].shape,
            candidate_shape=alignment.candidate.sites[pair.candidate].shape,
            total=None,
            intrinsic=apart.get(pair),
            budget=semantics_budget(STRICT, 0.0),
        )
        for pair in alignment.pairs
    ]
    return with_unrounded(Bench(subject, inputs), bare_rows(alignment, errors, ()))
