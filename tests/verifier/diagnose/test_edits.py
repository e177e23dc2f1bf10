"""Edits of a program: what is found, what it is called, and what is not taken for an explanation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.ports.hosts import Host
from tests.mutants.ports.picture_regions import PICTURE, padded, padding
from verifier import verify
from verifier.diagnose.edits.leaves import leaves
from verifier.diagnose.edits.schemas import argument_name, unset
from verifier.diagnose.edits.solving import solve, written
from verifier.graph import KeptCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.records import Cause, PairResult


def cause_of(baseline: Callable[..., Tensor], candidate: Callable[..., Tensor]) -> tuple[PairResult, Cause]:
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    (culprit,) = verify(Host(baseline).eval(), Host(candidate).eval(), x).culprits
    assert culprit.cause is not None
    return culprit, culprit.cause


def of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> KeptCall:
    return KeptCall.of(function, args, kwargs, set())


def test_numbers_that_must_move_together_are_solved_for_together() -> None:
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)

    def residual(numbers: Sequence[float]) -> Tensor:
        return ((x + numbers[0]) / numbers[1]).clamp(0, 1) - F.hardsigmoid(x)

    found = solve(residual, [1.0, 2.0])
    assert found is not None
    assert found == pytest.approx([3.0, 6.0], abs=1e-12)
    assert solve(lambda numbers: residual([numbers[0], 2.0]), [1.0]) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3.0000000001, 3.0),
        (0.33333333331, 1 / 3),
        (1e-5 * (1 + 1e-9), 1e-5),
        (0.7071067811, 1 / math.sqrt(2)),
        (6.2831853071, 2 * math.pi),
        (1.7019999999, 1.702),
        (2e-13, 0.0),
    ],
)
def test_a_number_that_was_solved_for_is_told_as_somebody_would_write_it(value: float, number: float) -> None:
    assert next(written(value, ())) == pytest.approx(number, rel=1e-15)


def test_a_number_of_the_baselines_comes_before_a_rounder_one() -> None:
    assert next(written(0.5000001, (0.50000012,))) == 0.50000012


def test_arguments_are_called_by_the_operators_schema() -> None:
    x = torch.ones(2, 3)
    called = [
        argument_name(of(function, *args), name)
        for function, args, name in (
            (Tensor.logsumexp, (x, -1, True), "names"),
            (Tensor.mean, (x, 1, True), "arg1"),
            (Tensor.sum, (x, (0, 1), True), "arg2"),
        )
    ]
    assert called == ["dim", "dim", "keepdim"]


def test_settings_left_at_their_default_are_known() -> None:
    x = torch.ones(2, 3)
    assert ("correction", 1) in unset(of(torch.var_mean, x, dim=1))
    assert ("indexing", "ij") in unset(of(torch.meshgrid, x[0], x[0]))
    assert ("approximate", "none") in unset(of(F.gelu, x))


def test_what_is_written_in_an_index_can_be_changed() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    call = of(Tensor.__getitem__, x, (slice(None), slice(0, 2)))
    stop = next(leaf for leaf in leaves(call) if leaf.value == 2)
    assert stop.put(call, 3).run()[0][0].equal(x)
    assert call.run()[0][0].equal(x[:, :2])


def test_two_edits_that_do_are_both_told_and_the_baselines_is_the_cause() -> None:
    baseline, candidate = Host(padded((0, 1, 0, 1))).eval(), Host(padding(1)).eval()
    x = torch.randn(PICTURE, generator=torch.Generator().manual_seed(1))

    (culprit,) = verify(baseline, candidate, x).culprits

    assert culprit.cause is not None
    assert culprit.cause.summary == "it pads 1 on all sides, the baseline (0, 1, 0, 1)"
    (other,) = (line for line in culprit.cause.evidence if line.startswith("another edit does as well"))
    assert "(0, 2, 0, 2)" in other  # the stride of 2 does not reach the second


@pytest.mark.usefixtures("brief_searches")
def test_operators_in_the_place_of_others_say_where_and_not_why() -> None:
    _, cause = cause_of(
        lambda m, x: F.softmax(m.q(x), -1),
        lambda m, x: (m.q(x).sin() + m.q(x).cos().exp().cumsum(-1)).sigmoid(),
    )
    assert (cause.code, cause.status) == ("region-different", "located")


def test_a_constant_is_printed_beside_the_baselines() -> None:
    def divided(values: list[float]) -> Callable[..., Tensor]:
        return lambda m, x: m.q(x).unflatten(-1, (-1, 4)) / torch.tensor(values, dtype=x.dtype)

    def run(values: list[float]) -> Callable[..., Tensor]:
        return lambda m, x: divided(values)(m, x).flatten(-2)

    _, cause = cause_of(run([1, 2, 3, 5]), run([5, 3, 2, 1]))
    assert cause.code == "constant-different"
    assert "(5, 3, 2, 1), the baseline's (1, 2, 3, 5): one is the other's reverse" in cause.summary


def test_parts_of_a_split_that_are_exchanged_are_one_fault() -> None:
    def modulated(swapped: bool) -> Callable[..., Tensor]:
        def run(m: Any, x: Tensor) -> Any:
            shift, scale = m.up(x).chunk(2, -1)
            if swapped:
                shift, scale = scale, shift
            return F.layer_norm(x, (16,)) * (1 + scale) + shift

        return run

    culprit, cause = cause_of(modulated(False), modulated(True))
    assert culprit.op == "add"
    assert (cause.code, cause.confirmed) == ("operand-order", True)
    assert "chunk[0] and chunk[1] are exchanged" in cause.summary


def test_a_missing_chain_of_operators_is_one_edit() -> None:
    def capped(m: Any, x: Tensor) -> Any:
        return ((m.q(x) / 3.0).tanh() * 3.0).softmax(-1)

    def uncapped(m: Any, x: Tensor) -> Any:
        scores = m.q(x)
        return (scores - scores.logsumexp(-1, keepdim=True)).exp()

    _, cause = cause_of(capped, uncapped)
    assert cause.confirmed
    assert "div (3.0), tanh, mul (3.0) are missing" in cause.summary


def test_the_same_edit_at_several_sites_says_where_else() -> None:
    def gated(slope: float) -> Callable[..., Tensor]:
        def run(m: Any, x: Tensor) -> Tensor:
            for part in (m.q, m.k):
                h = part(x)
                x = x + h * torch.sigmoid(h * slope)
            return x

        return run

    def silu(m: Any, x: Tensor) -> Tensor:
        for part in (m.q, m.k):
            x = x + F.silu(part(x))
        return x

    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    culprits = verify(Host(silu).eval(), Host(gated(1.702)).eval(), x).culprits
    assert len(culprits) == 2
    for culprit in culprits:
        assert culprit.cause is not None
        assert "1.702 where 1.0 is right" in culprit.cause.summary
        assert any(line.startswith("the same at 1 other site") for line in culprit.cause.evidence)


class Pooled(nn.Module):
    """A sequence of tokens that becomes one."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool, self.head = pool, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.pool(x.sin()))
        return found


@pytest.mark.parametrize(
    ("baseline", "candidate", "told"),
    [
        (lambda x: x.mean(1), lambda x: x[:, 0], "one place along dim 1 where its mean is right"),
        (lambda x: x.amax(1), lambda x: x.select(1, -1), "one place along dim 1 where its amax is right"),
        (lambda x: x.sum(1), lambda x: x[..., 2, :], "one place along dim 1 where its sum is right"),
    ],
)
def test_a_place_for_a_mean_is_a_cause(
    baseline: Callable[[Tensor], Tensor], candidate: Callable[[Tensor], Tensor], told: str
) -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    (culprit,) = verify(Pooled(baseline).eval(), Pooled(candidate).eval(), x).culprits
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("operator-different", True)
    assert told in culprit.cause.summary


class Heads(nn.Module):
    """Attention written by hand; `joined` puts its heads side by side again."""

    def __init__(self, joined: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self._joined = joined

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(2, 5, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        a = (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1)
        out: Tensor = self.o(self._joined(a @ v).reshape(2, 5, 8))
        return out


class Attended(nn.Module):
    def __init__(self, joined: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.mixed: Any = nn.MultiheadAttention(8, 2, batch_first=True) if joined is None else Heads(joined)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        mixed = self.mixed(x) if isinstance(self.mixed, Heads) else self.mixed(x, x, x)[0]
        out: Tensor = self.last(mixed)
        return out


def test_heads_that_are_not_put_side_by_side_again_are_a_missing_transpose() -> None:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    right, wrong = Attended(lambda a: a.transpose(1, 2)).eval(), Attended(lambda a: a).eval()
    assert verify(Attended().eval(), right, x).verdict == "match"
    (culprit,) = verify(Attended().eval(), wrong, x).culprits
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("transpose-missing", True)
    assert "(1, 2)" in culprit.cause.summary


class Thinned(nn.Conv2d):
    """A convolution without its smallest weights."""

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.abs()
        kept = self.weight * (size > size.flatten().kthvalue(20).values)
        return F.conv2d(x, kept, self.bias)


def test_what_is_done_to_a_weight_on_the_way_is_one_operator_too_many() -> None:
    """And not an operator that makes the rest of it do nothing."""
    torch.manual_seed(0)
    baseline = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    candidate = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Thinned(8, 4, 3)).eval()
    (culprit,) = verify(baseline, candidate, torch.randn(2, 3, 9, 9)).culprits
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("scale-extra", True)
    assert culprit.cause.summary == "mul is one operator too many"
