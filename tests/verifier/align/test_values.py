"""Where two models hold the same tensors, these say which projection is which, however they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify
from verifier.weights import fingerprints

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 12


class Three(nn.Module):
    """Three projections of one tensor, and an operator on each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, WIDTH) to the same shape."""
        made: Tensor = (self.a(x).sin() + self.b(x).cos() + self.c(x).tanh()).cumsum(1)
        return made


class Turned(nn.Module):
    """The same in another order, with weights as exporters store them, and another operator on the last."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        held = Three().state_dict()
        self.a, self.b, self.c = (nn.Parameter(held[f"{name}.weight"].T.contiguous()) for name in "abc")
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, WIDTH) to the same shape."""
        first = torch.matmul(x, self.c).tanh() + torch.matmul(x, self.b).cos()
        return (first + self.last(torch.matmul(x, self.a))).cumsum(1)


X = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("last", "culprits"), [(torch.sin, []), (torch.sinh, ["sin"])])
def test_projections_are_paired_by_what_they_hold(
    last: Callable[[Tensor], Tensor], culprits: list[str]
) -> None:
    found = verify(Three(), Turned(last), X, weights="as-is")
    assert found.verdict is (Verdict.DIVERGED if culprits else Verdict.MATCH)
    pairs = {row.baseline: row.candidate for row in found.cells[0].layers if row.candidate is not None}
    assert (pairs["a"], pairs["b"], pairs["c"]) == ("matmul_2", "matmul_1", "matmul")
    assert [row.baseline for row in found.culprits] == culprits


def test_a_fault_in_one_projection_leaves_the_others_where_they_belong() -> None:
    candidate = Turned(torch.sin)
    with torch.no_grad():
        candidate.b[:, 3] *= 1.05
    found = verify(Three(), candidate, X, weights="as-is")
    (culprit,) = found.culprits
    assert (culprit.baseline, culprit.candidate) == ("b", "matmul_1")
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("weight-perturbed", True)


def test_a_matrix_is_known_whichever_way_it_is_stored() -> None:
    matrix = torch.randn(30, 20)
    marks = fingerprints({"one": matrix, "turned": matrix.T.contiguous(), "other": torch.randn(30, 20)})
    assert marks["one"] == marks["turned"]
    assert marks["one"] != marks["other"]


def test_constants_tell_nothing() -> None:
    marks = fingerprints({"ones": torch.ones(3, 4), "row": torch.arange(8.0)})
    assert marks["ones"] is None
    assert marks["row"] is not None
