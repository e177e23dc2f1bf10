"""Causes that an edit of the candidate's own program confirms, in place of those that only say where."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from verifier.diagnose.edits import JOINT, KINDS, RUNS, Meter, searched
from verifier.diagnose.neighbourhood import distance
from verifier.graph.operators import DRAWS
from verifier.records import UNEXPLAINED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.diagnose.edits import Found, Kind, Searched
    from verifier.diagnose.neighbourhood import Lay, Neighbourhood
    from verifier.graph import KeptCall, Site
    from verifier.records import Cause, PairResult

# Codes of causes that say where two regions part, and not why.
LOCATED = frozenset({"operator-different", "order-different", "region-different"})
# Codes that an edit says more exactly.
_VAGUE = LOCATED | {
    UNEXPLAINED,
    "constant-different",
    "operand-order",
    "wiring-different",
    "operator-different",
}
_VAGUE |= {
    "activation-different",
    "norm-different",
    "pooling-different",
    "input-overwritten",
    "shortcut-different",
}

# Codes that say more than the edit that confirms them.
_SPOKEN = frozenset(
    {
        "batchnorm-variance",
        "internal-cast",
        "dropout-active",
        "residual-scaled",
        "scale-extra",
        "flatten-order",
    }
)

# Of this thread: what one search may cost, all of a pass together, and each even then.
_SECONDS, _SECONDS_IN_ALL, _LEAST = 4.0, 20.0, 0.5
_LARGEST_LIMIT = 1e-5  # beyond, as in half precision, too much would pass for the baseline's
_KEPT = 4  # regions that are at fault and that a fault further on may be part of


@dataclass(frozen=True)
class _Region:
    """Both sides of a row that is at fault, and which row its fault is told at."""

    row: PairResult
    baseline: Neighbourhood
    candidate: Neighbourhood
    cause: Cause
    first: int

    def same_call(self, candidate: Neighbourhood, cause: Cause) -> bool:
        """Whether a fault is this one, seen at another tensor of the same call."""
        sites = self.candidate.site, candidate.site
        if sites[0] is None or sites[1] is None or cause.code != self.cause.code:
            return False
        calls = candidate.graph.call_of
        return calls[sites[0].index] == calls[sites[1].index]


class Edits:
    """Searches the regions of one alignment for the smallest edits.

    Attributes:
        settled: Causes of rows that were found with a row further on, whose fault is the same; by the row's index.
        follows: Rows, by index, that are right where the pair above is not overwritten: it was no pair.
        led: Rows of another shape that are no fault once a row further on is put right, with that one.
    """

    def __init__(self, partner: Mapping[int, int], lay: Lay) -> None:
        self._partner = partner
        self._lay = lay
        self._left = _SECONDS_IN_ALL
        self._regions: list[_Region] = []
        self._reread: dict[int, tuple[int, int]] = {}
        self._edit_of: dict[int, tuple[tuple[str, ...], str]] = {}
        self.settled: dict[int, Cause] = {}
        self.follows: set[int] = set()
        self.led: dict[int, int] = {}

    def cause(
        self,
        row: PairResult,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        limit: float,
        cause: Cause,
        *,
        alone: bool = False,
    ) -> Cause:
        """`cause` made exact by the smallest edit of the region; a place only, where there is none and it is vague.

        With `alone` the cause was confirmed on what the baseline's operators give, and does not hold by itself.
        """
        if any(site.op in DRAWS for site, _ in baseline.between):
            return cause  # what was drawn here says nothing of what is drawn elsewhere
        found = self._searched(baseline, candidate, wanted, limit, KINDS)
        if (found is None or found.found is None) and (
            cause.code in _VAGUE or not cause.confirmed or _refuted(cause, candidate)
        ):
            wide = (
                self._searched(baseline.wider(), candidate.wider(), wanted, limit, KINDS)
                if candidate.beyond
                else None
            )
            if wide is not None and wide.right:
                self.follows.add(row.index)
            if wide is not None and wide.found is not None:
                found = wide
        if found is None or found.found is None:
            vague = cause.code in LOCATED or (alone and found is not None)
            vague |= found is not None and _refuted(cause, candidate)
            cut = () if found is None or not found.cut else (f"the search was cut after {found.runs} runs",)
            return msgspec.structs.replace(
                cause, confirmed=cause.confirmed and not vague, evidence=(*cause.evidence, *cut)
            )
        edit = found.found.edit
        self._edit_of[row.index] = edit.at, edit.summary
        if edit.reread is not None:
            self._reread[row.index] = edit.reread
        return merged(cause, found.found, anew=alone)

    def cause_of_reads(
        self, row: PairResult, baseline: Neighbourhood, candidate: Neighbourhood, limit: float, cause: Cause
    ) -> Cause:
        """The same for a site that is wrong itself as well: what it reads is put right, not what it gives."""
        pairs = list(zip(baseline.reads, candidate.reads, baseline.sources, candidate.sources, strict=False))
        wrong = [each for each in pairs if distance(each[1], self._lay(each[0], each[1])) > limit]
        if len(baseline.reads) != len(candidate.reads) or len(wrong) != 1:
            return msgspec.structs.replace(cause, confirmed=cause.confirmed and cause.code not in LOCATED)
        b, c, b_source, c_source = wrong[0]
        sides = [
            replace(side, site=None, call=None, reads=(tensor,), sources=(source,))
            for side, tensor, source in ((baseline, b, b_source), (candidate, c, c_source))
        ]
        return self.cause(row, sides[0], sides[1], self._lay(b, c), limit, cause)

    def first_of(
        self,
        row: PairResult,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        limit: float,
        cause: Cause,
    ) -> int | None:
        """The row whose fault this one's is as well: one edit above puts both right. None where it is its own."""
        if row.index in self.follows:
            return row.above[-1]
        first = next((each.first for each in self._regions if each.same_call(candidate, cause)), None)
        edit = self._edit_of.get(row.index)
        if first is None and edit is not None and edit[0]:
            first = next(
                (index for index, other in self._edit_of.items() if other == edit and index != row.index),
                None,
            )
        if first is None:
            first = self._crossed(row, candidate)
        if first is None and _structural(cause):
            for near in reversed(self._regions):
                if near.row.index in row.above:
                    joined = _joined(near.baseline, baseline), _joined(near.candidate, candidate)
                    found, here = self._joint(near, candidate, *joined, wanted, limit)
                    if found is not None and here:
                        if near.row.misshapen and not near.cause.confirmed:
                            self.led[near.row.index] = row.index
                    elif found is not None:
                        first, (baseline, candidate) = near.first, joined
                        if _structural(near.cause) or not near.cause.confirmed:
                            self.settled[first] = merged(near.cause, found, anew=True)
                        break
        region = _Region(row, baseline, candidate, cause, row.index if first is None else first)
        self._regions = [*self._regions, region][-_KEPT:]
        return first

    def _crossed(self, row: PairResult, candidate: Neighbourhood) -> int | None:
        """The row that reads of one call the part which this one should, and the other way about."""
        reread = self._reread.get(row.index)
        if reread is None or min(reread) < 0:
            return None
        calls = {candidate.graph.call_of[key] for key in reread}
        first = next((index for index, other in self._reread.items() if other == reread[::-1]), None)
        if first is None or len(calls) > 1:
            return None
        region = next((each for each in self._regions if each.row.index == first), None)
        if region is None:
            return None
        one, other = (candidate.graph.sites[key] for key in sorted(reread))
        parts = f"{one.op}[{one.output}] and {one.op}[{other.output}]"
        self.settled[first] = msgspec.structs.replace(
            region.cause,
            code="operand-order",
            summary=f"{parts} are exchanged: each is read where the other is right",
            remedy=f"exchange {parts}",
        )
        return region.first

    def _joint(
        self,
        near: _Region,
        itself: Neighbourhood,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        limit: float,
    ) -> tuple[Found | None, bool]:
        """The edit that puts two rows right at once, and whether it changes nothing of the first."""
        searched = self._searched(baseline, candidate, wanted, limit, JOINT)
        if searched is None or searched.found is None or searched.found.holds is False:
            return None, False
        last = {site.name.partition("[")[0] for site, _ in _calls(itself)}
        earlier = {site.name.partition("[")[0] for site, _ in _calls(near.candidate)} - last
        return searched.found, not earlier & set(searched.found.edit.at)

    def _searched(
        self,
        baseline: Neighbourhood,
        candidate: Neighbourhood,
        wanted: Tensor,
        limit: float,
        kinds: Sequence[Kind],
    ) -> Searched | None:
        if limit > _LARGEST_LIMIT:
            return None
        started = time.thread_time()
        meter = Meter(RUNS, min(_SECONDS, max(self._left, _LEAST)))
        found = searched(baseline, candidate, self._partner, self._lay, wanted, limit, meter, kinds)
        self._left -= time.thread_time() - started
        return found


def _refuted(cause: Cause, candidate: Neighbourhood) -> bool:
    """Whether a cause speaks of operators missing or too many though no edit of them puts the region right."""
    if cause.code.endswith("-missing"):
        return bool(candidate.between)
    return cause.code.endswith("-extra") and cause.code not in _SPOKEN


def _structural(cause: Cause) -> bool:
    """Whether a cause speaks of operators and wiring, which the row above may have a part in."""
    return cause.code in _VAGUE or cause.code.endswith(("-missing", "-extra", "-different"))


def _calls(side: Neighbourhood) -> list[tuple[Site, KeptCall]]:
    itself = [] if side.site is None or side.call is None else [(side.site, side.call)]
    return [*side.between, *itself]


def _joined(above: Neighbourhood, below: Neighbourhood) -> Neighbourhood:
    """One side of two regions as one, judged where the second is."""
    between = {site.index: (site, call) for site, call in (*_calls(above), *below.between)}
    return replace(below, between=tuple(between[index] for index in sorted(between)))


def merged(cause: Cause, found: Found, *, anew: bool) -> Cause:
    """A cause with the edit that confirms it: told as the edit, but where the cause says the same already."""
    edit = found.edit
    at = ", ".join(dict.fromkeys(each for each in edit.at if each))
    evidence = [
        f"relative error {found.before:.1e} becomes {found.after:.1e} with this edit"
        + (f" at {at}" if at else " of what comes out")
    ]
    if found.holds:
        evidence.append("on other numbers the two then agree as well")
    if found.other is not None:
        evidence.append(f"another edit does as well: {found.other.remedy} ({found.other.summary})")
    kept = cause.code == edit.code and not edit.known
    kept |= cause.code == "input-overwritten" and edit.code == "wiring-different"
    kept |= cause.code in _SPOKEN or (cause.code.startswith("input-") and cause.code != "input-overwritten")
    if kept and cause.confirmed and (not anew or cause.code in _SPOKEN):
        return msgspec.structs.replace(cause, evidence=(*evidence, *cause.evidence[:-1]))
    return msgspec.structs.replace(
        cause,
        code=edit.code,
        summary=edit.summary,
        confirmed=True,
        evidence=(*evidence, *edit.evidence),
        also=(),
        remedy=edit.remedy,
    )
