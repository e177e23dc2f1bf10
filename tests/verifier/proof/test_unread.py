"""Differences that nothing behind them reads, each beside the fault that looks like it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, TOKENS = 6, 8


class Masked(nn.Module):
    """Attention that does not look at some tokens; `fill` stands in their place, `shift` moves them."""

    def __init__(self, fill: float, shift: int = 0) -> None:
        super().__init__()
        self.fill = fill
        self.before, self.scores, self.after = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        hidden = torch.arange(TOKENS)[None] >= torch.tensor([[5], [7], [3]])
        self.register_buffer("hidden", hidden.roll(shift, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, TOKENS, WIDTH) to the same shape."""
        y = self.before(x)
        assert isinstance(self.hidden, Tensor)
        scores = (self.scores(y) @ y.mT).masked_fill(self.hidden[: len(x), None], self.fill)
        return self.after(scores.softmax(-1) @ y)  # type: ignore[no-any-return]


class Padded(nn.Module):
    """What is padded with `value`, mixed, and cut to its size again; `cut` is how much of the front goes."""

    def __init__(self, value: float, cut: int = 1) -> None:
        super().__init__()
        self.value, self.cut = value, cut
        self.before, self.mix, self.after = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, WIDTH) to the same shape."""
        y = torch.tanh(self.mix(F.pad(self.before(x), (0, 0, 1, 1), value=self.value)))
        return self.after(y[:, self.cut : self.cut + x.shape[1]])  # type: ignore[no-any-return]


class Offset(nn.Module):
    """An offset behind which a ReLU gives zeros, or which a parameter of zeros multiplies."""

    def __init__(self, offset: float, act: Callable[[Tensor], Tensor], *, gain: bool = False) -> None:
        super().__init__()
        self.offset, self.act = offset, act
        self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.gain = nn.Parameter(torch.zeros(WIDTH)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, WIDTH) to (N, T, 3)."""
        y = self.act(self.before(x) - self.offset)
        return self.after(x + (y if self.gain is None else y * self.gain))  # type: ignore[no-any-return]


def compared(baseline: nn.Module, candidate: nn.Module) -> Verification:
    candidate.load_state_dict({**candidate.state_dict(), **dict(baseline.named_parameters())})
    x = torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    return verify(baseline.eval(), candidate.eval(), x)


def unread(result: Verification) -> list[str | None]:
    return [row.baseline for row in result.layers if row.unread]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("seed", [0, 1, 2, 21])  # with the last, scores come near -1e4 on inputs times 100
@pytest.mark.parametrize(
    ("fill", "other"),
    [(-math.inf, -1e9), (-math.inf, torch.finfo(torch.float32).min), (-math.inf, -1e4), (-1e9, -1e8)],
)
def test_what_stands_at_masked_places_is_no_fault(fill: float, other: float, seed: int) -> None:
    torch.manual_seed(seed)
    result = compared(Masked(fill), Masked(other))
    assert result.verdict == "match", result.reason
    assert unread(result) == ["masked_fill"]
    assert any("masked_fill" in note for cell in result.cells for note in cell.notes)


def test_what_fills_a_mask_is_no_fault_only_where_no_scores_come_near() -> None:
    models = [Masked(-1e9), Masked(-40.0)]
    for model in models:
        with torch.no_grad():
            model.scores.weight.mul_(1e-3)
            model.scores.bias.mul_(1e-3)
    assert compared(*models).verdict == "diverged"


def test_another_mask_is_a_fault_and_what_stands_there_is_none() -> None:
    result = compared(Masked(-math.inf), Masked(-1e9, shift=1))
    assert result.verdict == "diverged"
    assert unread(result) in ([], ["masked_fill"])


def test_a_mask_that_masks_too_little_is_a_fault() -> None:
    result = compared(Masked(-1e9), Masked(-20.0))
    assert [row.baseline for row in result.culprits] == ["masked_fill"]
    result = compared(Masked(-math.inf), Masked(-3.0))
    assert [row.baseline for row in result.culprits] == ["masked_fill"]


def test_what_is_cut_off_is_no_fault() -> None:
    result = compared(Padded(0.0), Padded(1.0))
    assert result.verdict == "match", result.reason
    assert unread(result) == ["pad", "mix", "tanh"]


def test_what_is_not_cut_off_is_a_fault() -> None:
    result = compared(Padded(0.0, cut=0), Padded(1.0, cut=0))
    assert [row.baseline for row in result.culprits] == ["pad"]


def test_what_an_activation_happens_to_hide_is_a_fault() -> None:
    result = compared(Offset(30.0, torch.relu), Offset(31.0, torch.relu))
    assert [row.baseline for row in result.culprits] == ["sub"]


def test_what_a_parameter_of_zeros_hides_is_a_fault() -> None:
    result = compared(Offset(1.0, torch.tanh, gain=True), Offset(2.0, torch.tanh, gain=True))
    assert [row.baseline for row in result.culprits] == ["sub"]


class Branching(nn.Module):
    """A branch that the given numbers do not choose."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.gain = nn.Linear(4, 8), nn.Linear(8, 3), gain

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        found: Tensor = self.last(torch.where(h > 30, h * self.gain, torch.tanh(h)))
        return found


def test_a_branch_that_other_numbers_choose_is_read() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    found = verify(Branching(2.0), Branching(0.5), x)
    assert found.verdict == "diverged"
    assert [row.op for row in found.culprits] == ["mul"]


class Gated(nn.Module):
    """A branch behind what is 0 at first: a projection, a batch norm's gain, or a gate; `act` is the branch's own."""

    def __init__(self, act: Callable[[Tensor], Tensor], how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act, self.how = act, how
        self.before, self.after, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.gate = nn.BatchNorm1d(8), nn.Parameter(torch.zeros(1))
        for tensor in (self.after.weight, self.after.bias, self.norm.weight):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        y = self.act(h)
        if self.how == "linear":
            h = h + self.after(y)
        elif self.how == "norm":
            h = h + self.norm(y)
        else:
            h = torch.addcmul(h, self.gate, y)
        found: Tensor = self.last(h)
        return found


def quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def by_hand(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def other(x: Tensor) -> Tensor:
    return torch.exp(-x.abs()) - torch.cos(x)


class Shut(nn.Module):
    """A branch behind a gate that one number shuts."""

    def __init__(
        self, act: Callable[[Tensor], Tensor], gate: Callable[[Tensor], Tensor], shut: float
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act, self.gate = act, gate
        self.before, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.share = nn.Parameter(torch.tensor([shut]))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(x + self.gate(self.share) * self.act(self.before(x)))
        return found


@pytest.mark.parametrize(
    ("gate", "shut"),
    [(torch.sigmoid, -40.0), (torch.relu, -10.0), (torch.log1p, 0.0)],
    ids=["sigmoid", "relu", "log1p"],
)
def test_a_rewritten_branch_behind_a_gate_that_is_shut_is_compared_with_it_open(
    gate: Callable[[Tensor], Tensor], shut: float
) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert verify(Shut(quick, gate, shut), Shut(by_hand, gate, shut), x).verdict == "match"
    assert verify(Shut(quick, gate, shut), Shut(other, gate, shut), x).verdict != "match"


class Bound(nn.Module):
    """A branch that a share of 0 hides, beside a constant of which not every number can be made."""

    def __init__(
        self, act: Callable[[Tensor], Tensor], of: Callable[[Tensor], Tensor], constant: float
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act, self.of = act, of
        self.before, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.share = nn.Parameter(torch.zeros(4))
        self.constant = nn.Parameter(torch.full((4,), constant))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.of(self.constant)
        found: Tensor = self.last(x + self.share * self.act(self.before(x)))
        return found


@pytest.mark.parametrize(
    ("of", "constant"),
    [(lambda c: torch.sqrt(c - 1), 2.0), (lambda c: torch.log(-c), -2.0), (torch.acosh, 3.0)],
    ids=["root", "logarithm", "acosh"],
)
def test_a_constant_keeps_to_where_the_program_takes_it(
    of: Callable[[Tensor], Tensor], constant: float
) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert verify(Bound(quick, of, constant), Bound(by_hand, of, constant), x).verdict == "match"
    assert verify(Bound(quick, of, constant), Bound(other, of, constant), x).verdict != "match"


@pytest.mark.parametrize("how", ["linear", "norm", "gate"])
def test_a_rewritten_branch_that_weights_of_zero_hide_is_compared_with_others(how: str) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    right = verify(Gated(quick, how).eval(), Gated(by_hand, how).eval(), x)
    assert right.verdict == "match", right.reason
    wrong = verify(Gated(quick, how).eval(), Gated(other, how).eval(), x)
    assert wrong.verdict != "match"


class Experts(nn.Module):
    """Experts in a loop or at once, weighed by numbers that leave one out; `wrong` makes that one another."""

    def __init__(self, *, loop: bool = False, wrong: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loop, self.wrong = loop, wrong
        self.weights = nn.ParameterList(torch.randn(4, 4) for _ in range(5))
        self.last = nn.Linear(4, 3)
        self.register_buffer("share", torch.tensor([1.0, 1, 1, 0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        share = self.share
        assert isinstance(share, Tensor)
        if not self.loop:
            mixed = torch.einsum("ni,kij->nkj", x, torch.stack(list(self.weights)))
            return self.last((torch.tanh(mixed) * share[:, None]).sum(1))  # type: ignore[no-any-return]
        total = torch.zeros_like(x)
        for k, weight in enumerate(self.weights):
            y = x @ weight
            total = total + (torch.sin(y) if self.wrong and k == 3 else torch.tanh(y)) * share[k]
        return self.last(total)  # type: ignore[no-any-return]


def test_an_expert_that_is_left_out_is_compared_with_other_shares() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert verify(Experts(), Experts(loop=True), x).verdict == "match"
    assert verify(Experts(), Experts(loop=True, wrong=True), x).verdict != "match"


def test_operators_that_need_a_tensor_of_their_own_are_no_fault() -> None:
    layers = nn.Linear(4, 8), nn.Linear(8, 3)
    baseline, candidate = (nn.Sequential(layers[0], Acting(act), layers[1]) for act in (quick, by_hand))
    result = verify(baseline, candidate, torch.randn(3, 4))
    assert result.verdict == "match", result.reason


class Acting(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)
