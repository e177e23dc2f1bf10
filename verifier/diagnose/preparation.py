"""Why two models read other inputs: the pictures they were given were prepared otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.diagnose.neighbourhood import Neighbourhood, distance
from verifier.recognise.prepared_inputs import recognise
from verifier.records import Cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.graph import Graph


def cause_of_preparing(
    baseline: Neighbourhood, candidate: Neighbourhood, reads: Sequence[Tensor] | None
) -> Cause | None:
    """The cause where the models prepare their input otherwise: only inputs are above, and they hold images."""
    between = (*baseline.between, *candidate.between)
    if reads is None or not between or any(site.op not in _PREPARING for site, _ in between):
        return None
    sources = [*baseline.values(), *candidate.values()]
    if not sources or any(source >= 0 for source in sources):
        return None
    if not reads or not baseline.reads or reads[0].dim() != 4:
        return None
    cause = cause_of_preparation(reads[0], baseline.reads[0])
    return None if cause is None or cause.code == "input-different" else cause


# An input is prepared in float32 mostly; undoing that cannot be more exact.
_PREPARED = 1e-6


def cause_of_preparation(given: Tensor, wanted: Tensor) -> Cause | None:
    """Why two inputs differ: what was done to one and not to the other. None where they are equal."""
    finding = recognise(given, wanted)
    if finding is None:
        return None
    error = float("inf") if finding.undo is None else distance(finding.undo(given), wanted)
    return Cause(
        code=finding.code,
        summary=f"it {finding.summary}",
        confirmed=error <= _PREPARED,
        evidence=(
            *finding.evidence,
            *(() if finding.undo is None else (f"undone, the input is off by {error:.1e}",)),
        ),
        remedy="prepare the input as the baseline does",
    )


def prepares(graph: Graph, index: int) -> bool:
    """Whether a site is a step that prepares images: nothing but such steps between it and the inputs it reads."""
    seen, waiting, reads = {index}, [index], False
    while waiting:  # a chain of such steps may be longer than Python calls itself
        site = graph.sites[waiting.pop()]
        if site.op not in _PREPARING:
            return False
        reads |= any(source is not None and source < 0 for source in site.operands)
        new = {source for source in site.operands if source is not None and source >= 0} - seen
        seen |= new
        waiting.extend(new)
    return reads


_PREPARING = frozenset(
    {"add", "clamp", "contiguous", "div", "flip", "float", "getitem", "index_select", "interpolate", "mul"}
    | {"permute", "sub", "to"}
)


def as_preparation(cause: Cause, given: Tensor, wanted: Tensor) -> Cause:
    """The cause at a step that prepares images, in the words of what was done to them."""
    if wanted.dim() != 4 or given.shape != wanted.shape:
        return cause
    finding = recognise(given, wanted)
    if finding is None or finding.code == "input-different":
        return cause
    code = "input-normalisation" if finding.code == "input-scale" else finding.code
    return msgspec.structs.replace(
        cause, code=code, evidence=(*cause.evidence, f"its picture {finding.summary}", *finding.evidence)
    )
