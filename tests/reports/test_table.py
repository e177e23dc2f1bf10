from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import table
from tests import samples
from verifier.records import Accuracy, Status

if TYPE_CHECKING:
    from verifier.records import PairResult
    from verifier.storage.saving import Verification


def unpacked(column: Any, count: int) -> list[Any]:
    """A column as the script on the page reads it."""
    if isinstance(column, list):
        return column
    if "words" in column:
        return [column["words"][place] for place in column["at"]]
    return [column["all"]] * count


def figures_of(rows: tuple[PairResult, ...]) -> dict[str, list[Any]]:
    cell = msgspec.structs.replace(samples.verification().cells[0], layers=rows)
    data = table.data(msgspec.structs.replace(samples.verification(), cells=(cell,)))
    return {key: unpacked(column, len(rows)) for key, column in data["cells"][0]["figures"].items()}


def test_every_pair_of_every_cell_is_there(diverged: Verification) -> None:
    data = table.data(diverged)
    assert [cell["name"] for cell in data["cells"]] == ["cpu/float64", "cpu/float32"]
    for cell, told in zip(diverged.cells, data["cells"], strict=True):
        sites = data["lists"][told["list"]]
        assert sites["count"] == len(cell.layers)
        assert sites["baseline"] == [row.baseline for row in cell.layers]
        candidates = unpacked(sites["candidate"], sites["count"])
        assert [
            row.baseline if name == 0 else name for row, name in zip(cell.layers, candidates, strict=True)
        ] == [row.candidate for row in cell.layers]
        statuses = [data["statuses"][each][0] for each in unpacked(told["status"], sites["count"])]
        assert statuses == [row.status for row in cell.layers]
        assert unpacked(told["figures"]["total"], sites["count"]) == [
            float(f"{row.total.nrmse:.3g}") for row in cell.layers if row.total
        ]


def test_cells_of_the_same_sites_share_their_list(diverged: Verification) -> None:
    assert len(table.data(diverged)["lists"]) == 1
    assert len(table.data(samples.matrix())["lists"]) == 3


def test_the_first_cell_shown_is_the_one_that_decides(diverged: Verification, matching: Verification) -> None:
    assert table.data(diverged)["first"] == 0
    cells = (msgspec.structs.replace(matching.cells[0], role="semantics", name="a"), matching.cells[0])
    assert table.data(msgspec.structs.replace(matching, cells=cells))["first"] == 1
    skipped = msgspec.structs.replace(matching.cells[0], layers=())
    assert table.data(msgspec.structs.replace(matching, cells=(skipped, matching.cells[0])))["first"] == 1


def test_a_site_is_shown_with_both_errors_and_what_is_allowed(diverged: Verification) -> None:
    found = figures_of(diverged.cells[0].layers)
    assert (found["total"][1], found["allowed_total"][1]) == (0.0005, 1e-12)
    assert (found["intrinsic"][1], found["allowed_intrinsic"][1]) == (0.0005, 1e-12)
    assert (found["max_abs"][1], found["max_abs_at"][1]) == (0.002, "0, 17, 3, 5")
    assert found["intrinsic"][0] is None


def test_what_is_not_a_number_is_spelt_and_what_was_not_measured_is_null() -> None:
    found = figures_of(
        (
            msgspec.structs.replace(samples.pair(0), total=None, budget=None),
            msgspec.structs.replace(
                samples.pair(1), total=samples.comparison(math.nan, nonfinite_candidate=3)
            ),
            msgspec.structs.replace(samples.pair(2), total=samples.comparison(math.inf)),
        )
    )
    assert found["total"] == [None, "nan", "inf"]
    assert found["allowed_total"] == [None, 1e-12, 1e-12]
    assert found["nonfinite_c"] == [None, 3, 0]


@pytest.mark.parametrize(
    ("figures", "times"),
    [
        (
            {
                "baseline_intrinsic": 2.0,
                "candidate_intrinsic": 5.0,
                "baseline_total": 1.0,
                "candidate_total": 9.0,
            },
            2.5,
        ),
        ({"baseline_total": 1.0, "candidate_total": 9.0}, 9),
        ({"baseline_total": 0.0, "candidate_total": 0.0}, 1),
        ({"baseline_total": 0.0, "candidate_total": 0.1}, "inf"),
    ],
)
def test_the_candidates_distance_from_float64_is_told_in_the_baselines(
    figures: dict[str, float], times: float | str
) -> None:
    accuracy = Accuracy(**({"baseline_total": None, "candidate_total": None} | figures))
    row = msgspec.structs.replace(samples.pair(1), accuracy=accuracy)
    assert figures_of((row, samples.pair(2)))["times"] == [times, None]


def test_what_nobody_measured_has_no_column() -> None:
    assert not {"times", "ulp_max", "intrinsic", "layout"} & figures_of((samples.pair(0),)).keys()


def test_reasons_are_given_where_the_figures_do_not_say_it_all() -> None:
    found = figures_of(
        (
            samples.pair(1, status=Status.CULPRIT, reason="eps"),
            samples.pair(2, status=Status.CARRIES, reason="total relative error"),
        )
    )
    assert found["reason"] == ["eps", ""]


@given(st.recursive(st.text() | st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_embedded_text_cannot_end_its_element(content: object) -> None:
    text = table.embedded(["</script><!--&", content])
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == ["</script><!--&", content]


def test_r_is_written_where_1_minus_r_does_not_say_it_to_as_many_digits() -> None:
    known = [column for column in table.FIGURES if column.key == "r"]
    near, far, none = (
        samples.comparison(0.1, pearson=r, one_minus_pearson=left)
        for r, left in ((0.999, 1e-3), (0.00139, 0.99861), (math.nan, math.nan))
    )
    [told] = [column.column([near, far, none]) for column in known]
    assert told[:2] == [None, 0.00139]
    assert math.isnan(told[2])  # type: ignore[arg-type] # a number
