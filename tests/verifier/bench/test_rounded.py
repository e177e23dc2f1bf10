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


class Chain(nn.Module):
    """Four linear layers with activations between."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.l0, self.l1, self.l2, self.l3 = (
            nn.Linear(8, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 4),
        )
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.l3(torch.relu(self.l2(self.act(self.l1(torch.relu(self.l0(x)))))))
        return y


def equalised(act: nn.Module) -> Chain:
    """The same function with scales moved from one layer into the next, and an activation between them."""
    found = Chain(act)
    scale = torch.rand(16, generator=torch.Generator().manual_seed(2)) + 0.5
    with torch.no_grad():
        found.l1.weight.mul_(scale[:, None])
        found.l1.bias.mul_(scale)
        found.l2.weight.copy_(found.l2.weight.double() / scale.double())
    return found.eval()


def test_scales_that_move_from_layer_to_layer_are_no_difference_and_hide_none() -> None:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(5))
    whole = Chain(nn.ReLU()).eval()
    assert verify(whole, equalised(nn.ReLU()), x, weights="as-is").verdict == "match"
    # On the given inputs nothing comes near 6: only others tell.
    assert verify(whole, equalised(nn.ReLU6()), x, weights="as-is").verdict == "diverged"
