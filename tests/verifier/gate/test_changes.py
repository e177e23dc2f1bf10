"""The run in which a site's error became another is named, by arithmetic and not by taste."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import samples
from verifier.gate.changes import moved
from verifier.gate.history import append
from verifier.gate.recall import Selection, recall
from verifier.records import Budget, CellResult, PairResult, Status, Verdict, WeightsInfo

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.records import Timeline
    from verifier.storage.saving import Verification
pytestmark = pytest.mark.usefixtures("outside")


ROUNDING, BEYOND = True, False
LIMIT = 1e-12


@pytest.mark.parametrize(
    ("was", "now", "alike", "found"),
    [
        (0.0, 0.0, True, None),
        (0.0, 1e-2, True, BEYOND),
        (1e-2, 0.0, True, BEYOND),
        (0.0, 3e-17, True, ROUNDING),
        (3e-17, 0.0, True, ROUNDING),
        (3e-17, 9e-13, True, None),  # both inside the budget, neither exact: rounding may do that
        (LIMIT, 1.1e-12, True, BEYOND),
        (1e-2, 1e-2 + 1e-12, True, None),  # the same fault, measured twice
        (1e-2, 1.001e-2, True, BEYOND),  # another fault on the same numbers
        (1e-2, 2e-2, False, None),  # on other numbers the same fault has another size
        (0.0, 1e-2, False, BEYOND),
        (math.nan, math.nan, True, None),
        (math.inf, math.inf, True, None),
        (1e-2, math.nan, True, BEYOND),
        (0.0, math.nan, True, BEYOND),
        (math.nan, 0.0, True, BEYOND),
        (1e-2, math.inf, True, BEYOND),
        (None, 1e-2, True, None),
        (1e-2, None, True, None),
    ],
)
def test_an_error_moved(was: float | None, now: float | None, alike: bool, found: bool | None) -> None:
    assert moved(was, now, LIMIT, LIMIT, alike=alike) is found


ERRORS = st.floats(min_value=0, allow_infinity=True) | st.just(math.nan)
LIMITS = st.floats(min_value=0, max_value=1e3)


@given(was=ERRORS, now=ERRORS, before=LIMITS, after=LIMITS, alike=st.booleans())
def test_a_move_has_no_direction(was: float, now: float, before: float, after: float, alike: bool) -> None:
    assert moved(was, now, before, after, alike=alike) is moved(now, was, after, before, alike=alike)


@given(error=ERRORS, shift=st.floats(min_value=-1, max_value=1), limit=LIMITS)
def test_what_rounding_may_do_to_a_fault_is_no_change(error: float, shift: float, limit: float) -> None:
    """Two measurements of one true error, each off by at most its budget, are never told apart outside of it."""
    one, other = error + shift * limit, error - shift * limit
    if min(one, other) > limit:
        assert moved(one, other, limit * (1 + 1e-12), limit * (1 + 1e-12), alike=True) in (None, BEYOND)
        if math.isfinite(error) and error < 1e6 * max(limit, 1e-300):
            assert moved(one, other, limit * (1 + 1e-9), limit * (1 + 1e-9), alike=True) is None


def row(index: int, intrinsic: float | None, total: float, **fields: Any) -> PairResult:
    return samples.pair(
        index,
        total=total,
        intrinsic=None if intrinsic is None else samples.comparison(intrinsic),
        budget=Budget(rule="semantics/float64", total=LIMIT, intrinsic=LIMIT),
        **fields,
    )


def result(
    *rows: PairResult, verdict: Verdict = Verdict.MATCH, digest: str = "w", **fields: Any
) -> Verification:
    cell = CellResult(name="cpu/float64", role="semantics", verdict=verdict, batch_size=2, layers=rows)
    found = samples.verification(verdict=verdict, cells=(cell,), **fields)
    return msgspec.structs.replace(
        found,
        inputs=msgspec.structs.replace(found.inputs, digest="i"),
        weights=WeightsInfo(mode="calibrated", baseline_digest=digest),
    )


def good(**fields: Any) -> Verification:
    return result(*(row(k, 0.0, 0.0) for k in range(5)), **fields)


def bad(at: int = 2, size: float = 1e-2, **fields: Any) -> Verification:
    rows = [
        row(
            k,
            size if k == at else 0.0,
            0.0 if k < at else size,
            status=Status.OK if k < at else Status.CULPRIT if k == at else Status.CARRIES,
        )
        for k in range(5)
    ]
    return result(*rows, verdict=Verdict.DIVERGED, **fields)


def kept(tmp_path: Path, *results: Verification, **asked: Any) -> tuple[Timeline, ...]:
    file = tmp_path / "history.sqlite"
    for each in results:
        append(each, file)
    return recall(file, Selection(**asked)).timelines


def test_the_culprit_is_named_and_what_inherits_is_told_apart(tmp_path: Path) -> None:
    [timeline] = kept(tmp_path, good(), good(), bad(), bad())
    first, *others = timeline.changes
    assert (first.run, first.before, first.site, first.kind) == (3, 2, "relu", "intrinsic")
    assert (first.was, first.now, first.inherited, first.rounding) == (0.0, 1e-2, False, False)
    assert [(each.site, each.kind, each.inherited) for each in others] == [
        ("layer1.0.conv1", "total", True),
        ("layer1.0.bn1", "total", True),
    ]
    assert timeline.verdicts == (3,)
    assert [line.site for line in timeline.lines] == ["relu"]


def test_a_fault_that_is_mended_and_one_that_grows_are_changes_too(tmp_path: Path) -> None:
    [timeline] = kept(tmp_path, bad(), bad(size=2e-2), bad(size=2e-2 + 1e-13), good())
    own = [(each.run, each.site, each.now) for each in timeline.changes if not each.inherited]
    assert own == [(2, "relu", 2e-2), (4, "relu", 0.0)]


def test_a_second_fault_below_the_first_is_seen_though_totals_differ_already(tmp_path: Path) -> None:
    both = bad()
    rows = list(both.cells[0].layers)
    rows[4] = row(4, 3e-3, 1.1e-2, status=Status.CULPRIT)
    [timeline] = kept(tmp_path, bad(), result(*rows, verdict=Verdict.DIVERGED))
    assert [(each.site, each.kind, each.inherited) for each in timeline.changes] == [
        ("layer1.0.bn1", "intrinsic", False)
    ]
    assert timeline.verdicts == ()


def test_rounding_is_told_as_that_and_comes_behind(tmp_path: Path) -> None:
    rounded = [row(k, 0.0, 0.0) for k in range(5)]
    rounded[1] = row(1, 3e-17, 3e-17)
    [timeline] = kept(tmp_path, good(), result(*rounded))
    assert [(each.site, each.rounding) for each in timeline.changes] == [("bn1", True)]
    faulty = [*bad(at=3).cells[0].layers]
    faulty[0] = row(0, 3e-17, 3e-17)
    [timeline] = kept(tmp_path / "other", good(), result(*faulty, verdict=Verdict.DIVERGED))
    assert [each.site for each in timeline.changes if not each.inherited] == ["layer1.0.conv1", "conv1"]


def test_without_forced_passes_total_errors_are_compared(tmp_path: Path) -> None:
    free = result(*(row(k, None, 0.0 if k < 2 else 1e-2) for k in range(5)), verdict=Verdict.DIVERGED)
    [timeline] = kept(tmp_path, good(), free)
    assert next((each.site, each.kind, each.inherited) for each in timeline.changes) == (
        "relu",
        "total",
        False,
    )


def numerics(found: Verification, name: str = "cpu/float32") -> Verification:
    """With such a cell in front in which a match has no forced pass."""

    def of(each: PairResult) -> PairResult:
        return msgspec.structs.replace(
            each, intrinsic=None if found.verdict is Verdict.MATCH else each.intrinsic
        )

    cell = msgspec.structs.replace(
        found.cells[0], name=name, role="numerics", layers=tuple(map(of, found.cells[0].layers))
    )
    return msgspec.structs.replace(found, cells=(cell, *found.cells))


@pytest.mark.parametrize("mended", [False, True])
def test_a_cell_that_knows_the_culprits_own_error_before_and_after_is_told_first(
    tmp_path: Path, mended: bool
) -> None:
    runs = [numerics(good()), numerics(bad())]
    [timeline] = kept(tmp_path, *(reversed(runs) if mended else runs))
    own = [(each.cell, each.site, each.kind) for each in timeline.changes if not each.inherited]
    assert own == [("cpu/float64", "relu", "intrinsic"), ("cpu/float32", "relu", "total")]
    assert [each.site for each in timeline.changes if each.inherited] == [
        "layer1.0.conv1",
        "layer1.0.bn1",
    ] * 2


def test_what_carries_is_never_told_before_a_culprit(tmp_path: Path) -> None:
    """In a cell of float32 alone, where a match has no intrinsic errors."""
    runs = [
        msgspec.structs.replace(each, cells=each.cells[:1]) for each in (numerics(good()), numerics(bad()))
    ]
    [timeline] = kept(tmp_path, *runs)
    assert [(each.site, each.inherited) for each in timeline.changes] == [
        ("relu", False),
        ("layer1.0.conv1", True),
        ("layer1.0.bn1", True),
    ]


def test_a_run_that_did_not_measure_a_site_is_looked_past(tmp_path: Path) -> None:
    without = result(*(row(k, 0.0, 0.0) for k in range(2)))
    [timeline] = kept(tmp_path, good(), without, bad())
    assert (timeline.changes[0].run, timeline.changes[0].before, timeline.changes[0].site) == (3, 1, "relu")


def test_a_site_that_loses_its_partner_is_a_change(tmp_path: Path) -> None:
    alone = [row(k, 0.0, 0.0) for k in range(5)]
    alone[3] = samples.pair(3, candidate=None, status=Status.UNMATCHED, budget=None)
    alone[3] = msgspec.structs.replace(alone[3], total=None)
    [timeline] = kept(tmp_path, good(), result(*alone, verdict=Verdict.INCONCLUSIVE), good())
    assert [(each.run, each.site, each.kind) for each in timeline.changes] == [
        (2, "layer1.0.conv1", "partner"),
        (3, "layer1.0.conv1", "partner"),
    ]


def test_on_other_weights_the_same_fault_is_no_change_and_a_new_one_is_with_its_grounds(
    tmp_path: Path,
) -> None:
    [timeline] = kept(tmp_path, bad(), bad(size=5e-2, digest="x"), good(digest="x"), bad(digest="y"))
    own = [(each.run, each.grounds) for each in timeline.changes if not each.inherited]
    assert own == [(3, ()), (4, ("the baseline's weights are others",))]


def test_each_network_and_each_ground_is_followed_by_itself(tmp_path: Path) -> None:
    other = msgspec.structs.replace(good().candidate, spec="other.py:build")
    runs = [good(), bad(candidate=other), good(seed=1), bad(policy="criteria")]
    timelines = kept(tmp_path, *itertools.chain(runs, runs))
    assert len(timelines) == 4
    assert all(not timeline.changes and not timeline.verdicts for timeline in timelines)


def test_cells_are_followed_by_themselves(tmp_path: Path) -> None:
    two = good()
    numerics = msgspec.structs.replace(bad().cells[0], name="cpu/float32", role="numerics")
    two = msgspec.structs.replace(two, cells=(*two.cells, numerics))
    [timeline] = kept(tmp_path, two, two)
    assert timeline.changes == ()
    [timeline] = recall(tmp_path / "history.sqlite", Selection(cell="cpu/float64", site="*")).timelines
    assert {line.cell for line in timeline.lines} == {"cpu/float64"}
