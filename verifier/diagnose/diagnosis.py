"""Running the sites under suspicion again: which are wrong on the baseline's inputs, and what would mend them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from torch import Tensor

from verifier.diagnose.causes import (
    cause_of_inputs,
    cause_of_site,
    cause_of_state,
    changed_unseen,
    composed,
    unexplained,
)
from verifier.diagnose.edited import Edits
from verifier.diagnose.folds import folded
from verifier.diagnose.neighbourhood import (
    STATISTICS,
    Lay,
    Neighbourhood,
    as_it_is,
    carried_over,
    distance,
    error_of,
    laid_as,
    shared_reads,
)
from verifier.diagnose.preparation import as_preparation, cause_of_preparation, prepares
from verifier.diagnose.reruns import Scene, look_at
from verifier.graph.tensors import dense
from verifier.records import Cause, Comparison, PairResult, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.align import Alignment
    from verifier.diagnose.reruns import OpenLanes
    from verifier.graph import KeptCall


@dataclass(frozen=True)
class Examined:
    """What running one row's site again has shown.

    Attributes:
        replayed: Error of the candidate's site on the baseline's inputs; None where the shapes differ.
        replayed_shape: The shape it gave there; None where it could not be run again.
        inputs_differ: Whether what the site reads differs though all paired rows above were made equal.
        here: Why the site is wrong, if it is.
        above: Why its inputs are, if they are.
        follows: The row, by its index, whose fault this one's is as well; None where it is its own.
    """

    replayed: Comparison | None
    replayed_shape: tuple[int, ...] | None
    inputs_differ: bool | None
    here: Cause | None
    above: Cause | None
    follows: int | None = None


def diagnose(
    alignment: Alignment,
    rows: Sequence[PairResult],
    others: Mapping[str, Tensor],
    open_lanes: OpenLanes,
) -> dict[int, Examined]:
    """Examine every row that may be at fault, in one forced pass.

    Args:
        alignment: The pairs.
        rows: The judged rows, forced pass included.
        others: The baseline's parameters and buffers by name, as they are in the cell.
        open_lanes: Makes the baseline's lane and the candidate's, given the calls each is to keep.

    Returns:
        What was found, by the row's index.
    """
    wanted = [
        row for row in rows if _suspicious(row, rows) and not (alignment.rebuilt and _cleared(row, rows))
    ]
    if not wanted:
        return {}
    scenes = [Scene.of(alignment, row, rows, wide=True) for row in wanted if row.kind != "state" or row.above]
    examiner = _Examiner(alignment, others)
    found: dict[int, Examined] = {}

    def look(
        k: int,
        baseline: Neighbourhood | None,
        candidate: Neighbourhood | None,
        wanted: Tensor,
        given: Tensor,
    ) -> None:
        told = examiner.examined(scenes[k], baseline, candidate, wanted, given)
        if told is not None:
            found[scenes[k].row.index] = told

    look_at(alignment, scenes, open_lanes, look)
    for index, cause in examiner.edits.settled.items():
        told = found[index]
        found[index] = replace(told, here=cause) if told.above is None else replace(told, above=cause)
    for index, first in examiner.edits.led.items():
        found[index] = replace(found[index], follows=first)
    return found


def diagnose_inputs(
    rows: Sequence[PairResult], baseline: Sequence[Tensor], candidate: Sequence[Tensor]
) -> dict[int, Examined]:
    """Why the candidate's own inputs differ from the baseline's, by the row's index."""
    found = {}
    for row in rows:
        if row.kind == "input" and row.status is Status.CULPRIT:
            position = row.position or 0
            cause = cause_of_preparation(candidate[position], baseline[position])
            found[row.index] = Examined(None, None, None, cause, None)
    return found


def _suspicious(row: PairResult, rows: Sequence[PairResult]) -> bool:
    """Whether a row is at fault, or could be if what is above it did not hide that."""
    if row.kind in {"input", "call"}:
        return False
    if row.kind == "state":
        return row.status is Status.CULPRIT
    if row.status in (Status.UNMATCHED, Status.OK) and row.candidate_shape is None:
        return False
    return (
        row.status is Status.CULPRIT
        or row.apart
        or row.rewired
        or any(rows[above].misshapen for above in row.above)
    )


def _cleared(row: PairResult, rows: Sequence[PairResult]) -> bool:
    """Whether a row gives the right tensor once all pairs above it do.

    Models built from other operators read other tensors at many a place, and rightly so.
    """
    if row.intrinsic is None or row.budget is None or any(rows[above].misshapen for above in row.above):
        return False
    return row.intrinsic.within(row.budget.intrinsic)


class _Examiner:
    """Looks at each scene when the lanes stand there."""

    def __init__(self, alignment: Alignment, others: Mapping[str, Tensor]) -> None:
        self._alignment = alignment
        self._lay = laid_as if alignment.rebuilt else as_it_is
        self._others = others
        self.edits = Edits(alignment.partner, self._lay)

    def examined(
        self,
        scene: Scene,
        baseline: Neighbourhood | None,
        candidate: Neighbourhood | None,
        wanted: Tensor,
        given: Tensor,
    ) -> Examined | None:
        """What one scene shows; None where its sides cannot be looked into and nothing is wrong with it."""
        if scene.row.kind == "state":
            cause = cause_of_state(
                (scene.row.baseline or "").rpartition(".")[2],
                None if candidate is None else candidate.call,
                None if baseline is None else baseline.call,
                wanted,
                given,
                scene.row.budget.intrinsic if scene.row.budget else 0.0,
            )
            return Examined(None, None, None, cause, None)
        if baseline is not None and candidate is not None:
            told = composed(scene.row, baseline, candidate) if scene.row.composed else None
            baseline, candidate = folded(baseline, candidate) or (baseline, candidate)
            found = self._look(scene, baseline, candidate, wanted, given, told)
            return self._traced(found, scene.row, baseline, candidate, wanted, given)
        if scene.row.status is Status.CULPRIT:
            return Examined(None, None, None, unexplained(given, wanted), None)
        if scene.row.apart and scene.row.budget is not None:  # no call of its region was seen
            wanted = laid_as(wanted, given)
            if not distance(given, wanted) <= scene.row.budget.intrinsic:
                return Examined(None, None, None, None, unexplained(given, wanted))
        return None

    def _traced(
        self,
        found: Examined,
        row: PairResult,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        given: Tensor,
    ) -> Examined:
        """What was found, with the row whose fault it is, where that is another."""
        cause = found.above or found.here
        if cause is None or row.budget is None:
            return found
        wanted = laid_as(wanted, given).clone()
        first = self.edits.first_of(row, baseline, candidate, wanted, row.budget.intrinsic, cause)
        return found if first is None else replace(found, follows=first)

    def _look(
        self,
        scene: Scene,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        given: Tensor,
        told: Cause | None,
    ) -> Examined:
        row = scene.row
        limit = row.budget.intrinsic if row.budget else 0.0
        if row.layout:
            wanted = laid_as(wanted, given)
        edited = partial(self.edits.cause, row, baseline, candidate, wanted, limit)
        if self._alignment.rebuilt and told is not None:
            cause = self._of_fold(row, baseline, candidate, wanted, limit, told)
            return Examined(None, None, None, cause or edited(told), None)
        # Where another shape stands above, nothing could be forced: its place is taken by the baseline's tensor.
        reads = self._reads(baseline, candidate) if scene.misshapen else candidate.reads
        if candidate.call is None or baseline.call is None or candidate.site is None:  # an output
            differ = _differ(
                baseline.reads, reads, limit, as_it_is
            )  # outside, a layout is part of the answer
            above = None
            if differ and scene.unseen:
                above = changed_unseen(row, given, wanted)
            elif differ:
                above = edited(cause_of_inputs(row, baseline, candidate, reads, limit, mended=True))
            return Examined(error_of(wanted, wanted), row.shape, differ, None, above)
        seen = candidate.call if reads is None else candidate.call.with_operands(reads)
        should_read, does_read, call = shared_reads(baseline.call, seen, candidate.site.op, self._lay)
        differ = _differ(should_read, does_read, limit, self._lay)
        absorbed = _pads_itself(row, baseline, candidate) or _computes_statistics(candidate.call, row.op)
        tensor = None if call is None else _attempt(call, candidate.site.output)
        here = None
        if call is not None and (tensor is None or distance(tensor, wanted) > limit):
            here = cause_of_site(
                call, baseline.call, candidate.site.output, wanted, tensor, self._others, limit
            )
            if tensor is None and not here.confirmed:  # it may only follow what is wrong above it
                here = None
        if here is None and row.status is Status.CULPRIT and (call is None or tensor is None):
            here = unexplained(given, wanted)  # the site cannot be run again
        if here is not None and (absorbed or not here.confirmed or here.code == "operator-different"):
            here = edited(here, alone=absorbed)
        if here is not None and tensor is not None and prepares(candidate.graph, candidate.site.index):
            here = as_preparation(here, tensor, wanted)
        if absorbed and here is not None:
            here = _padding(here, baseline, candidate)
        above = None
        if differ and not absorbed:
            mended = call is not None and (here is None or here.confirmed)
            above = cause_of_inputs(row, baseline, candidate, does_read, limit, mended=mended)
            above = (
                edited(above)
                if here is None
                else self.edits.cause_of_reads(row, baseline, candidate, limit, above)
            )
        return Examined(
            None if tensor is None else error_of(tensor, wanted),
            _shape(tensor, wanted, row) if tensor is not None else None if here is None else (),
            False if absorbed else differ,
            here,
            above,
        )

    def _of_fold(
        self,
        row: PairResult,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        limit: float,
        told: Cause,
    ) -> Cause | None:
        """The confirmed cause where one side is one operator and the other the same with what is folded into it."""
        if baseline.between or candidate.between or baseline.call is None or candidate.call is None:
            return None
        b, c = baseline.site, candidate.site
        if b is None or c is None or b.op != c.op:
            return None
        _, _, call = shared_reads(baseline.call, candidate.call, c.op, self._lay)
        if call is None:
            return None
        tensor = _attempt(call, c.output)
        cause = cause_of_site(call, baseline.call, c.output, wanted, tensor, self._others, limit)
        if not cause.confirmed:
            return None
        cause = msgspec.structs.replace(cause, evidence=(*cause.evidence, *told.evidence[:1]))
        if all(code.startswith(("weight-", "bias-")) for code in (cause.code, *cause.also)):
            remedy = "fold the norm into the baseline's tensors anew"
            if row.between_candidate:  # it is the baseline that holds it folded
                remedy = "load the tensors that were folded into the baseline's"
            cause = msgspec.structs.replace(cause, remedy=remedy)
        return cause

    def _reads(self, baseline: Neighbourhood, candidate: Neighbourhood) -> tuple[Tensor, ...] | None:
        """What the candidate's site reads if everything above the two sites is as in the baseline."""
        values = carried_over(baseline.values(), candidate.values(), self._alignment.partner, self._lay)
        try:
            return candidate.replay(values)
        except Exception:
            return None


def _shape(tensor: Tensor, wanted: Tensor, row: PairResult) -> tuple[int, ...]:
    """The shape of the candidate's tensor, as the baseline lays it out and of as many samples as were compared."""
    return row.shape if tensor.shape == wanted.shape else tuple(tensor.shape)


def _differ(
    baseline: Sequence[Tensor], candidate: Sequence[Tensor] | None, limit: float, lay: Lay
) -> bool | None:
    """Whether the two sides read other tensors; None where that is not known."""
    if candidate is None:
        return None
    return len(candidate) != len(baseline) or any(
        distance(a, lay(b, a)) > limit for a, b in zip(candidate, baseline, strict=True)
    )


def _attempt(call: KeptCall, output: int) -> Tensor | None:
    """The tensor a call gives; None where it cannot be made on such arguments."""
    try:
        made: Any = call.run()[0]
        return dense(made[output]) if output < len(made) else None
    except Exception:
        return None


def _padding(cause: Cause, baseline: Neighbourhood, candidate: Neighbourhood) -> Cause:
    """The cause at a site whose padding one side does apart: told by what it pads with, if that differs."""
    b, c = (
        next((str(site.attributes.get("mode")) for site, _ in side.between), "constant")
        for side in (baseline, candidate)
    )
    if b == c or not cause.code.endswith("-padding"):
        return cause
    shown = {"constant": "with zeros"}
    summary = f"it pads {shown.get(c, f'by {c}')}, the baseline {shown.get(b, f'by {b}')}"
    remedy = f"pad {shown.get(b, f'by {b}')}"
    return msgspec.structs.replace(
        cause, code=f"{cause.code}-mode", summary=summary, remedy=remedy, evidence=()
    )


def _computes_statistics(call: KeptCall, op: str) -> bool:
    """Whether a batch norm works on statistics that operators above it compute: they are part of it then."""
    return op == "batch_norm" and any(
        isinstance(call.arguments.get(name), Tensor) and name not in call.state for name in STATISTICS
    )


def _pads_itself(row: PairResult, baseline: Neighbourhood, candidate: Neighbourhood) -> bool:
    """Whether one side pads in an operator of its own what the other pads in the site itself."""
    between = [site.op for site, _ in (*baseline.between, *candidate.between)]
    if not between or set(between) != {"pad"} or baseline.site is None or candidate.site is None:
        return False
    b, c = baseline.site.attributes.get("padding"), candidate.site.attributes.get("padding")
    return row.op == candidate.site.op and c is not None and b != c
