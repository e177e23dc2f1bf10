"""A norm that is folded into the product before it: known on all inputs, if both read the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from verifier import verify
from verifier.bench import semantics
from verifier.bench.rounded import folds
from verifier.records import PairResult, Verdict

if TYPE_CHECKING:
    from verifier.bench.bench import Bench


class Folding(nn.Module):
    """A convolution with its norm, or folded, that reads what is behind the activation or before it."""

    def __init__(self, *, folded: bool, before: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = before
        self.conv: nn.Module = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(11, 4, 1)
        self.bn.running_mean = torch.randn(8)
        self.bn.running_var = torch.rand(8) + 0.5
        if folded:
            self.conv, self.bn = fuse_conv_bn_eval(self.conv.eval(), self.bn.eval()), nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4, H, W)."""
        y = torch.relu(x)
        return self.out(torch.cat([self.bn(self.conv(x if self.before else y)), y], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("before", [False, True])
def test_a_fold_is_known_on_all_inputs_if_both_read_the_same(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = []

    def told(bench: Bench, rows: list[PairResult]) -> set[int]:
        found = folds(bench, rows)
        known.append(len(found))
        return found

    monkeypatch.setattr(semantics, "folds", told)
    x = torch.rand(4, 3, 8, 8)  # above 0, where the activation changes nothing
    found = verify(Folding(folded=False), Folding(folded=True, before=before), x, weights="as-is")
    assert found.verdict is Verdict.MATCH
    assert known == [0 if before else 1]
    assert found.exercise is not None
    assert bool(found.exercise.unexercised) is before
