"""Modules in one place that are other ones, or set otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.verifier.sharded.teams import compared
from verifier.records import Verdict
from verifier.sharded.settings import settings_of

X = 0.3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A layer, an activation, a norm."""

    def __init__(self, act: nn.Module | None = None, *, eps: float = 1e-5, p: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.act, self.norm = nn.Linear(4, 4), act or nn.ReLU6(), nn.LayerNorm(4, eps=eps)
        self.drop = nn.Dropout(p)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.drop(self.norm(self.act(self.one(x))))
        return made


class Own(nn.Module):
    """A norm by hand."""

    def __init__(self, eps: float, unread: float = 1.0) -> None:
        super().__init__()
        self.eps, self.unread = eps, unread

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class Called(nn.Module):
    """An activation that is called."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x) + x


class CalledOtherwise(Called):
    """Another in its place."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + x


class NotCalled(Called):
    """None in its place."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


class CalledInside(Called):
    """The same, called by a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return made + x


class CalledBy(nn.Module):
    """The same in a class of another's."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6) + x


class Clamped(nn.LayerNorm):
    """A norm that does first what an activation did before it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(0, 6))


WIDE = nn.Hardtanh(-9, 9)  # these inputs do not reach its ends


def test_a_setting_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Net(), [Net(eps=2e-5), Net(eps=2e-5)], X).result
    assert found.verdict is Verdict.DIVERGED
    assert [row.baseline for row in found.culprits] == ["norm"]
    cause = found.culprits[0].cause
    assert cause is not None
    assert cause.code == "layernorm-eps"
    assert cause.summary == "norm: eps is 2e-05, the baseline's 1e-05"


@pytest.mark.parametrize(
    ("whole", "part", "said"),
    [
        (nn.ReLU6(), nn.ReLU(), "act: relu, the baseline's is hardtanh"),
        (nn.Hardtanh(-9, 9), nn.Hardtanh(-8, 9), "min_val is -8"),
        (Called(), CalledOtherwise(), "act: relu, the baseline's is relu6"),
        (WIDE, nn.Identity(), "act: hardtanh is left out"),
    ],
    ids=["module", "setting", "call", "left out"],
)
def test_what_the_inputs_do_not_reach_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch, whole: nn.Module, part: nn.Module, said: str
) -> None:
    found = compared(monkeypatch, Net(whole), [Net(part), Net(part)], X)
    assert found.result.verdict is Verdict.INCONCLUSIVE
    assert said in found.result.reason
    assert any(said in note for note in found.notes)


def test_a_number_of_a_layer_by_hand_is_the_cause_where_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = compared(monkeypatch, Net(Own(0.1)), [Net(Own(0.2)), Net(Own(0.2))], X).result
    assert found.verdict is Verdict.DIVERGED
    cause = found.culprits[0].cause
    assert cause is not None
    assert cause.summary == "act: eps is 0.2, the baseline's 0.1"


def test_a_number_that_may_be_read_by_nothing_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Net(Own(0.1)), [Net(Own(0.1, 2.0))] * 2, X)
    assert found.result.verdict is Verdict.MATCH
    assert any("act: unread is 2.0" in note for note in found.notes)


def test_a_share_that_nothing_drops_by_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Net(), [Net(p=0.1), Net(p=0.1)], X)
    assert found.result.verdict is Verdict.MATCH
    assert any("drop: p is 0.1, the baseline's 0.5" in note for note in found.notes)


def test_what_a_part_has_less_of_is_no_setting() -> None:
    assert settings_of(nn.GroupNorm(2, 4)) == settings_of(nn.GroupNorm(1, 2))
    assert settings_of(nn.Conv2d(4, 4, 3, groups=2)) == settings_of(nn.Conv2d(2, 2, 3))
    assert settings_of(nn.Conv2d(4, 4, 3)) != settings_of(nn.Conv2d(4, 4, 3, dilation=2))


@pytest.mark.parametrize(
    ("whole", "part", "site", "code"),
    [
        (nn.ReLU6(), nn.Identity(), "norm", "hardtanh-missing"),
        (Called(), NotCalled(), "act.add", "relu6-missing"),
    ],
    ids=["module", "call"],
)
def test_an_activation_that_no_rank_has_is_the_cause(
    monkeypatch: pytest.MonkeyPatch, whole: nn.Module, part: nn.Module, site: str, code: str
) -> None:
    found = compared(monkeypatch, Net(whole), [Net(part), Net(part)], X).result
    assert found.verdict is Verdict.DIVERGED
    assert [(row.baseline, row.cause.code) for row in found.culprits if row.cause] == [(site, code)]
    cause = found.culprits[0].cause
    assert cause is not None
    assert cause.summary.endswith("is left out")


@pytest.mark.parametrize("part", [CalledInside(), CalledBy()], ids=["module", "other class"])
def test_an_activation_that_is_called_elsewhere_is_not_left_out(
    monkeypatch: pytest.MonkeyPatch, part: nn.Module
) -> None:
    found = compared(monkeypatch, Net(Called()), [Net(part)] * 2, X)
    assert found.result.verdict is Verdict.MATCH, found.result.reason
    assert not any("left out" in note for note in found.notes)


def test_an_activation_that_the_next_layer_computes_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Net(nn.Identity()) for _ in range(2)]
    for each in parts:
        each.norm = Clamped(4).eval()
    found = compared(monkeypatch, Net(), parts, X)
    assert found.result.verdict is Verdict.MATCH, found.result.reason
    assert not any("left out" in note for note in found.notes)
