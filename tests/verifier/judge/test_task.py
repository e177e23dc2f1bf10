"""Policies that judge the task: their budgets hold in every numerics cell, and for all that is returned."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, Verification, verify
from verifier.judge import STRICT
from verifier.judge.policy import NAMED
from verifier.judge.rejudging import judge_again

CELLS = ("cpu/float32", "cpu/bfloat16")


class Scores(nn.Module):
    """Ten class scores that lie close together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(6, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.hidden(x).relu())
        return y


class Lossy(Scores):
    """The same scores less their last digits: in float32 a few, in bfloat16 all of them."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) + 3000) - 3000


class Twice(Scores):
    """The same scores, and others that nobody asked for."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = super().forward(x)
        return y, 2 * y


def images() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["task", "pruned", "int8"])
def by_task(request: pytest.FixtureRequest) -> Verification:
    return verify(Scores(), Lossy(), images(), cells=CELLS, policy=NAMED[request.param], localise=False)


@pytest.fixture(scope="module")
def by_budgets() -> Verification:
    return verify(Scores(), Lossy(), images(), cells=CELLS, localise=False)


def test_the_budgets_of_the_task_hold_in_every_numerics_cell(by_task: Verification) -> None:
    assert by_task.verdict is Verdict.DIVERGED
    failed = [each for each in by_task.criteria if not each.passed]
    assert {each.cell for each in failed} == {"cpu/bfloat16"}
    assert "top-1 agreement in cpu/bfloat16" in by_task.reason
    budgets = [each for each in by_task.criteria if each.cell]
    assert [each.cell for each in budgets] == [name for name in CELLS for _ in range(3)]
    half = next(cell for cell in by_task.cells if cell.name == "cpu/bfloat16")
    assert half.output is not None
    assert [each.value for each in budgets[3:]] == [
        half.output.top1_agreement,
        half.output.kl_mean,
        half.output.largest_logit_error,
    ]


@pytest.mark.parametrize("name", ["task", "pruned", "int8"])
def test_a_saved_result_is_judged_in_every_cell_too(by_budgets: Verification, name: str) -> None:
    again = judge_again(by_budgets, NAMED[name])
    assert again.verdict is Verdict.DIVERGED
    assert "top-1 agreement in cpu/bfloat16" in again.reason


def test_where_all_cells_keep_the_budgets_it_is_a_match() -> None:
    found = verify(Scores(), Lossy(), images(), policy=NAMED["task"], localise=False)
    assert found.verdict is Verdict.MATCH, found.reason
    assert found.cells[-1].verdict is Verdict.DIVERGED, "by the budgets of a rewrite it would not be one"


def test_a_cell_that_did_not_run_is_not_judged_by_its_task(by_budgets: Verification) -> None:
    cells = tuple(
        msgspec.structs.replace(cell, verdict=Verdict.SKIPPED, named=False, output=None, layers=())
        if cell.name == "cpu/bfloat16"
        else cell
        for cell in by_budgets.cells
    )
    found = judge_again(msgspec.structs.replace(by_budgets, cells=cells), NAMED["task"])
    assert found.verdict is Verdict.MATCH, found.reason
    assert {each.cell for each in found.criteria} == {"", "cpu/float32"}


def test_a_cell_without_class_scores_leaves_the_task_open(by_budgets: Verification) -> None:
    cells = tuple(
        msgspec.structs.replace(cell, output=None) if cell.name == "cpu/bfloat16" else cell
        for cell in by_budgets.cells
    )
    found = judge_again(msgspec.structs.replace(by_budgets, cells=cells), NAMED["task"])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "cpu/bfloat16: no class scores are there to judge the task by"


@pytest.mark.parametrize("name", ["strict", "criteria", "task", "pruned", "int8"])
@pytest.mark.parametrize(
    ("ours", "theirs", "numbers"), [(Scores, Twice, (1, 2)), (Twice, Scores, (2, 1))], ids=["more", "fewer"]
)
def test_no_policy_overlooks_that_other_numbers_of_tensors_are_returned(
    ours: type[nn.Module], theirs: type[nn.Module], numbers: tuple[int, int], name: str
) -> None:
    found = verify(ours(), theirs(), images(), policy=NAMED[name], localise=False)
    assert found.verdict is Verdict.DIVERGED
    assert found.reason == f"the baseline returns {numbers[0]} tensors, the candidate {numbers[1]}"
    assert judge_again(found, STRICT).reason == found.reason
