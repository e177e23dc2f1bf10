"""Which kernels of a deployed form's stages make which sites of its program: the ladder from graph to machine."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from verifier.border.signals import check_unanswered
from verifier.forms.form import Telling
from verifier.records import StageKernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verifier.bench.side import Side
    from verifier.graph import Graph
    from verifier.records import FormStage

MOST = 4096
"""Kernels of a stage that are kept: more than any model has that a person looks through."""


def with_kernels(
    stages: Iterable[FormStage], sides: Sequence[Side], graphs: Sequence[Graph]
) -> tuple[FormStage, ...]:
    """Stages that have run, with their kernels where the runtime tells of them.

    Args:
        stages: What was found of each.
        sides: The models.
        graphs: The program of each as it was recorded.
    """
    recorded = {side.role: graph for side, graph in zip(sides, graphs, strict=True)}
    telling = {
        (side.role, stage.name): stage
        for side in sides
        if side.form is not None
        for stage in side.form.stages
        if isinstance(stage, Telling)
    }
    return tuple(
        _with_kernels(each, telling.get((each.role, each.name)), recorded[each.role]) for each in stages
    )


def _with_kernels(result: FormStage, stage: Telling | None, graph: Graph) -> FormStage:
    if stage is None:
        return result
    try:
        found = iter([each for each in stage.kernels(graph) if each.sites])
    except Exception as error:  # the runtime's own: nothing that is compared rests on what it tells
        check_unanswered(error)
        return result
    kept = tuple(
        StageKernel(
            name=each.name,
            operator=each.operator,
            sites=tuple(graph.sites[site].name for site in each.sites),
            dtype=each.dtype,
        )
        for each in islice(found, MOST)
    )
    return msgspec.structs.replace(result, kernels=kept, kernels_left=sum(1 for _ in found))
