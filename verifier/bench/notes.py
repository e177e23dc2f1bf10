"""What a reader should know of a comparison beside its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.bench.subject import SIDES
from verifier.environment import TF32_FLAGS
from verifier.graph.widening import fixes_single

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.align import Alignment
    from verifier.bench.comparing import Compared
    from verifier.bench.side import Side

_SOME = 3


def notes(
    sides: tuple[Side, Side], compared: Compared, kept: Sequence[str], *, lowered: bool, by_order: bool
) -> tuple[str, ...]:
    """All of them.

    Args:
        sides: Both models as they were given.
        compared: What was found.
        kept: What is to be said of tensors of the caller that were put back.
        lowered: Whether TF32 was allowed before the comparison began.
        by_order: Whether outputs were compared in their order.
    """
    alignment = compared.bench.alignment
    return (
        *(note for side in sides for note in side.notes),
        *_tf32(sides, lowered=lowered),
        *dict.fromkeys(note for cell in compared.cells if cell.calls for note in cell.calls.notes),
        *_in_order(alignment, by_order=by_order),
        *compared.notes,
        *(note for run in compared.runs for note in run.notes),
        *_overwritten(alignment),
        *_widened(alignment),
        *_rounded(compared),
        *kept,
        *_weights(compared),
    )


def returned_otherwise(compared: Compared) -> tuple[str, ...]:
    """How what the two return differs that is no number: a few sentences, each once."""
    said = [each for cell in compared.cells if cell.calls for each in cell.calls.differences]
    words = [each for cell in compared.cells for each in cell.words]
    return tuple(dict.fromkeys([*said, *words]))[:_SOME]


def _tf32(sides: tuple[Side, Side], *, lowered: bool) -> Iterator[str]:
    """Who lowered the precision of float32 products for the whole process, if anybody did."""
    who = [
        f"building the {side.role}"
        for side in sides
        if any(name in TF32_FLAGS and new in {"on", "high", "medium"} for name, _, new in side.flags)
    ]
    if lowered:
        who.append("something that ran before the comparison")
    for each in who:
        yield (
            f"{each} allowed TF32 for float32 matrix products on CUDA, in the whole process; here it is off but in "
            "cells of dtype tf32"
        )


def _in_order(alignment: Alignment, *, by_order: bool) -> Iterator[str]:
    """Which names were taken for the same: where that was asked for, or where a file has others than the model."""
    graphs = alignment.baseline, alignment.candidate
    labels = [graph.output_labels or graph.output_names for graph in graphs]
    labelled = any(graph.output_labels for graph in graphs)
    if labels[0] != labels[1] and (by_order or labelled):
        same = [f"{one or 'the output'} = {two or 'the output'}" for one, two in zip(*labels, strict=False)]
        yield f"outputs are compared in their order: {_some(same)}"


def _overwritten(alignment: Alignment) -> Iterator[str]:
    for side, graph in (("baseline", alignment.baseline), ("candidate", alignment.candidate)):
        if graph.writes_inputs:
            yield f"the {side} overwrites the inputs it is given"


def _widened(alignment: Alignment) -> Iterator[str]:
    """Where the programs fix float32, which float64 does not follow them in; what it does to halves shows there."""
    places = [
        [site.name for site in graph.sites if site.live and fixes_single(site.op, site.attributes)]
        for graph in (alignment.baseline, alignment.candidate)
    ]
    told = [
        f"the {role} at {_some(found)} ({len(found)})"
        for role, found in zip(("baseline", "candidate"), places, strict=True)
        if found
    ]
    if told:
        alone = " alone" if len(told) == 1 else ""
        yield f"in float64, casts to float32 inside the models give float64: {' and '.join(told)}{alone}"


def _rounded(compared: Compared) -> Iterator[str]:
    """Which tensors are known to the roundoff of what stores them, and agree as what they are the rounding of."""
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        names = list(compared.bench.subject.exact.get(side, {}))
        if names:
            what = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
            yield (
                f"stored weights: {what} of the {side} {'is' if len(names) == 1 else 'are'} the {other}'s, "
                f"rounded ({_some(names)}); "
                "float64 computes with what they are the rounding of"
            )


def _weights(compared: Compared) -> Iterator[str]:
    """What to know about the weights before believing a divergence."""
    masters = compared.bench.subject.masters
    silent = [each.candidate for each in compared.static if each.candidate and each.harmless]
    if silent:
        yield (
            f"a structural difference that is harmless: the candidate has {len(silent)} tensors that the baseline "
            f"does not have, biases of 0 or gains of 1: {_some(silent)}"
        )
    known = {*silent, *compared.bench.subject.exact.get("candidate", {}), *masters.resized[1]}
    lost = [name for name in masters.info.unmapped_candidate if name not in known]
    if masters.resized[1] and masters.info.mode != "as-is":
        yield (
            f"{len(masters.resized[1])} of the candidate's tensors have another shape than those in whose place they "
            f"stand; both models kept their own: {_some(sorted(masters.resized[1]))}"
        )
    if lost and masters.info.mode != "as-is":
        yield (
            f"{len(lost)} of the candidate's tensors have no partner in the baseline and kept values of their own: "
            f"{_some(lost)}. If they have one, name it with --map"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SOME]) + (", ..." if len(names) > _SOME else "")
