from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from torch import nn

from verifier import Verdict, Verification, verify
from verifier.judge import STRICT, overall
from verifier.judge.consistency import contradiction

if TYPE_CHECKING:
    from verifier.records import CellResult


def matching() -> Verification:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    other = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    return verify(net, other, torch.randn(4, 4))


def changed(found: Verification, **fields: object) -> list[CellResult]:
    """The cells, with the outputs' agreement of the numerics cell changed."""
    first, second = found.cells
    assert second.output is not None
    return [first, msgspec.structs.replace(second, output=msgspec.structs.replace(second.output, **fields))]


def test_a_match_that_is_one_is_not_contradicted() -> None:
    found = matching()
    assert found.verdict is Verdict.MATCH
    assert contradiction(found.cells, found.criteria) == ""
    assert [found.cells[1].layers[k].baseline for k in found.cells[1].outputs] == ["2"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("mse", 0.0255, "an MSE of 0.0255"), ("largest_logit_error", 0.5, "a logit error")],
)
def test_outputs_that_differ_more_than_any_site_leave_the_verdict_open(
    field: str, value: float, words: str
) -> None:
    found = matching()
    cells = changed(found, **{field: value})
    verdict, reason = overall(STRICT, cells, found.criteria, found.coverage)
    assert verdict is Verdict.INCONCLUSIVE
    assert words in reason
    assert "cpu/float32" in reason


def test_an_output_beyond_its_budget_in_a_cell_that_matches_leaves_it_open() -> None:
    found = matching()
    first, second = found.cells
    (end,) = second.outputs
    row = second.layers[end]
    assert row.total is not None
    wrong = msgspec.structs.replace(
        row, total=msgspec.structs.replace(row.total, nrmse=0.5, mse=0.25, max_abs=1.0)
    )
    cell = msgspec.structs.replace(second, layers=(*second.layers[:end], wrong, *second.layers[end + 1 :]))
    assert "exceeds its budget" in contradiction([first, cell], found.criteria)


def test_criteria_that_fail_where_nothing_bounds_the_error_leave_it_open() -> None:
    found = matching()
    first, second = found.cells
    (end,) = second.outputs
    row = second.layers[end]
    assert row.budget is not None
    open_row = msgspec.structs.replace(row, budget=msgspec.structs.replace(row.budget, total=float("inf")))
    cell = msgspec.structs.replace(second, layers=(*second.layers[:end], open_row, *second.layers[end + 1 :]))
    assert contradiction([first, cell], found.criteria) == ""
    failed = [msgspec.structs.replace(each, passed=False) for each in found.criteria]
    assert "nothing bounds" in contradiction([first, cell], failed)
