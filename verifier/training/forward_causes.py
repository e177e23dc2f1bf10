"""Why sites differ as a model is trained: what `run` would say of both in training mode, on a batch of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.bench.bench import Bench
from verifier.bench.protocol import Protocol
from verifier.bench.semantics import semantics
from verifier.cells import Cell
from verifier.errors import VerifierError
from verifier.inputs import tensors
from verifier.models.copying import copy_with, state_of
from verifier.records import UNEXPLAINED
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier.bench.semantics import Semantics
    from verifier.bench.subject import Subject
    from verifier.inputs import Inputs
    from verifier.records import Cause, PairResult
    from verifier.training.pairing import Pairing


def in_training(subject: Subject, given: Inputs) -> Semantics:
    """What a float64 run of copies in training mode says of both models.

    Raises:
        VerifierError: It cannot be run.
    """
    training = [
        copy_with(model, state_of(model), lambda tensor: tensor, role=role).train()
        for model, role in ((subject.baseline, "baseline"), (subject.candidate, "candidate"))
    ]
    live = Bench(replace(subject, baseline=training[0], candidate=training[1]), given)
    return semantics(live, [given], Cell("cpu", "float32"), Protocol())


def causes(pairing: Pairing, images: Tensor) -> Mapping[int, TrainingCause]:
    """The causes of sites that differ, by the position of their pair; none where nothing can be said.

    Args:
        pairing: The two models with their initial weights.
        images: The first batch, (N, C, H, W).
    """
    try:
        rows = in_training(pairing.subject, tensors(images.cpu())).assessed.result.layers
    except VerifierError:  # the training has said what is wrong
        return {}
    alignment = pairing.alignment
    by_name = {row.baseline: row for row in rows if row.baseline is not None}
    alone = {name: row.cause for row in rows for name in (row.baseline, row.candidate) if name and row.cause}
    found = {}
    for position, pair in enumerate(alignment.pairs):
        row = by_name.get(alignment.baseline.sites[pair.baseline].name)
        cause = None if row is None else _cause(row, alone)
        if cause is not None and cause.code != UNEXPLAINED:
            found[position] = TrainingCause(code=cause.code, summary=cause.summary, confirmed=cause.confirmed)
    return found


def _cause(row: PairResult, alone: Mapping[str, Cause]) -> Cause | None:
    """The cause at a site, or that of what stands above it on one side alone."""
    beside = (alone.get(name) for name in (*row.between_baseline, *row.between_candidate))
    return row.cause or next((each for each in beside if each is not None), None)
