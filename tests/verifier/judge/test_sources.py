"""What is blamed is told with the lines of both programs; what is not, without."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.documents import ROOT
from verifier import verify
from verifier.judge import Policy, judge_again
from verifier.records import Status, Verdict

if TYPE_CHECKING:
    import pytest

    from verifier.storage.saving import Verification


class Net(nn.Module):
    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=eps)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.conv(x))
        x = torch.relu(x)
        return self.head(x.mean((2, 3)))


class WithoutRelu(Net):
    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.conv(x))
        x = x.mean((2, 3))
        return self.head(x)


def line_of(kind: type[nn.Module], text: str) -> tuple[str, int, str]:
    code, first = inspect.getsourcelines(kind.forward)
    [found] = [first + k for k, line in enumerate(code) if text in line]
    return "tests/verifier/judge/test_sources.py", found, f"{kind.__name__}.forward"


def verified(baseline: nn.Module, candidate: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Verification:
    monkeypatch.chdir(ROOT)
    return verify(baseline.eval(), candidate.eval(), torch.randn(2, 3, 8, 8))


def test_a_culprit_knows_its_lines_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(Net(), Net(eps=1e-3), monkeypatch)

    [culprit] = found.culprits
    here = line_of(Net, "self.norm(")
    for row in (culprit, found.first_divergence, found.layers[culprit.index]):
        assert row is not None
        for source in (row.baseline_source, row.candidate_source):
            assert source is not None
            assert (source.file, source.line, source.function) == here


def test_only_what_is_blamed_is_told_with_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(Net(), Net(eps=1e-3), monkeypatch)

    known = {row.status for cell in found.cells for row in cell.layers if row.candidate_source}
    assert known <= {Status.CULPRIT, Status.AMPLIFIES}
    assert {row.status for cell in found.cells for row in cell.layers} > known


def test_a_match_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(Net(), Net(), monkeypatch)

    assert found.verdict is Verdict.MATCH
    assert not any(row.baseline_source or row.candidate_source for cell in found.cells for row in cell.layers)


def test_what_is_missing_stands_where_the_candidate_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = verified(Net(), WithoutRelu(), monkeypatch)

    [culprit] = found.culprits
    assert culprit.candidate is None
    assert culprit.baseline_source is not None
    assert culprit.candidate_source is not None
    assert culprit.baseline_source.line == line_of(Net, "torch.relu(")[1]
    assert culprit.candidate_source.line == line_of(WithoutRelu, "x.mean(")[1]


def test_what_is_extra_stands_where_the_baseline_goes_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(WithoutRelu(), Net(), monkeypatch)

    [culprit] = found.culprits
    assert culprit.baseline_source is not None
    assert culprit.candidate_source is not None
    assert culprit.baseline_source.line == line_of(WithoutRelu, "x.mean(")[1]
    assert culprit.candidate_source.line == line_of(Net, "torch.relu(")[1]


def test_judging_again_keeps_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(Net(), Net(eps=1e-3), monkeypatch)

    again = judge_again(found, Policy())

    assert math.isfinite(again.seconds)
    assert [row.candidate_source for row in again.culprits] == [
        row.candidate_source for row in found.culprits
    ]


class Adding(nn.Module):
    """Returns what it was given, with something written into it afterwards."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor) -> Any:
        y = x * 2
        y.data.view(-1)[:1] += self.amount
        return y


def test_an_output_that_is_no_site_stands_where_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verified(Adding(0.0), Adding(1.0), monkeypatch)

    assert found.verdict is Verdict.DIVERGED
    assert all(row.candidate_source for row in found.culprits)
