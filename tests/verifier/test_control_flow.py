"""What is said of a model whose control flow changes between two of its runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import GraphDepartureError, verify
from verifier.gate.policy_files import policy_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification

X = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)))
        return out

    def between(self, x: Tensor) -> Tensor:
        return x


class ByDtype(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x if x.dtype == torch.float32 else x + 1


class ByAutocast(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x + 1 if torch.is_autocast_enabled("cpu") else x


class ByCall(Plain):
    calls = 0

    def between(self, x: Tensor) -> Tensor:
        ByCall.calls += 1
        return x if ByCall.calls % 2 else x + 1


class ByBatch(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x if len(x) == 3 else x + 1


@pytest.mark.parametrize("side", ["baseline", "candidate"])
@pytest.mark.parametrize("cell", ["cpu/float32", "cpu/float64", "cpu/bfloat16"])
def test_a_branch_on_the_dtype_is_called_one_with_both_dtypes(side: str, cell: str) -> None:
    baseline, candidate = (ByDtype(), Plain()) if side == "baseline" else (Plain(), ByDtype())

    with pytest.raises(GraphDepartureError, match=rf"the {side} departs.*depends on the dtype") as raised:
        verify(baseline, candidate, X, weights="as-is", cells=[cell])

    assert "data" not in str(raised.value)
    assert "float32 when it was recorded" in str(raised.value)


def _message(model: Callable[[], nn.Module], **options: object) -> str:
    with pytest.raises(GraphDepartureError) as raised:
        verify(Plain(), model(), X, weights="as-is", **options)  # type: ignore[arg-type]
    return str(raised.value)


def test_a_branch_on_autocast_is_called_one() -> None:
    found = verify(Plain(), ByAutocast(), X, weights="as-is", cells=["cpu/bfloat16/autocast"])

    assert found.verdict == "inconclusive"
    assert "depends on whether autocast is on" in found.cells[1].reason
    assert [cell.verdict for cell in found.cells] == ["match", "skipped"]


def test_a_branch_that_changes_between_calls_blames_no_dtype_and_no_batch_size() -> None:
    message = _message(ByCall)

    assert "something that changes between two calls" in message
    assert "dtype" not in message
    assert "batch size" not in message


class OnFew(Plain):
    """What it does with small batches, behind its first layer and at its end."""

    def __init__(self, between: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._steps = between, last

    def forward(self, x: Tensor) -> Tensor:
        few = len(x) < 3
        out = self.first(x)
        out = self.second(self._steps[0](out) if few else out)
        return self._steps[1](out) if few else out


def same(x: Tensor) -> Tensor:
    return x


def doubled(x: Tensor) -> Tensor:
    return x * 2


MANY = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def probed(found: Verification) -> list[tuple[str, str]]:
    return [(each.name, str(each.verdict)) for each in found.probes]


@pytest.mark.parametrize(("between", "last"), [(doubled, same), (same, doubled), (torch.relu, same)])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_candidate_that_does_otherwise_with_few_samples_is_no_match(
    between: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor], batch_size: int | None
) -> None:
    found = verify(Plain(), OnFew(between, last), MANY, batch_size=batch_size)
    assert found.verdict == "diverged"
    assert ("2 samples a call", "diverged") in probed(found)
    assert "the given inputs do not show it" in found.reason


def test_a_baseline_that_does_otherwise_with_few_samples_is_no_match_either() -> None:
    assert verify(OnFew(doubled, same), Plain(), MANY).verdict == "diverged"


def test_two_models_that_do_the_same_otherwise_with_few_samples_match() -> None:
    found = verify(OnFew(doubled, torch.relu), OnFew(doubled, torch.relu), MANY)
    assert (found.verdict, [verdict for _, verdict in probed(found)]) == ("match", [])


def test_batches_that_were_asked_for_are_compared_where_they_go_another_way() -> None:
    class OfOne(Plain):
        def between(self, x: Tensor) -> Tensor:
            return x * 2 if len(x) == 1 else x

    found = verify(Plain(), OfOne(), MANY[:3], batch_size=1)
    assert (found.verdict, probed(found)) == ("diverged", [("1 sample a call", "diverged")])


class Fixed(Plain):
    """Made for eight samples: it fails with others."""

    def between(self, x: Tensor) -> Tensor:
        return x.view(8, 4)


class Heads(Plain):
    """Swaps the tokens of each sample, with the number of samples written out or not."""

    def __init__(self, *, samples: int | None) -> None:
        super().__init__()
        self._samples = samples

    def forward(self, x: Tensor) -> Tensor:
        out = self.first(x)
        swapped = out.reshape(self._samples or len(x), -1, 4).flip(1)
        result: Tensor = self.second(swapped.reshape(x.shape))
        return result


def test_a_candidate_that_fails_with_other_numbers_of_samples_is_told() -> None:
    found = verify(Plain(), Fixed(), MANY)
    assert (found.verdict, probed(found)) == ("match", [])
    assert "the candidate is made for 8 samples: it fails with others" in found.notes


def test_a_number_of_samples_that_is_written_out_is_told_and_no_fault() -> None:
    x = torch.randn(8, 8, 4, generator=torch.Generator().manual_seed(1))
    right, written = Heads(samples=None), Heads(samples=8)
    assert not right(x[:2]).equal(written(x[:2]))  # which takes two samples for eight
    found = verify(right, written, x)
    assert found.verdict == "match"
    assert "the candidate is made for 8 samples: others give other numbers" in found.notes


class Coarse(Plain):
    """Rounds by the largest of a batch, so that what an outlier does to others shows in a whole batch alone."""

    def between(self, x: Tensor) -> Tensor:
        scale = x.abs().amax() / 127
        return (x / scale).round() * scale


def test_a_policy_of_the_task_is_judged_on_all_that_was_given() -> None:
    x = torch.cat([MANY, MANY, MANY, MANY])
    x[7] = 300.0  # which the first and the last sample do not know of
    found = verify(Plain(), Coarse(), x, weights="as-is", policy=policy_for("int8", "net", "coarse"))
    (top,) = [each for each in found.criteria if "top-1" in each.name]
    assert top.value < 0.9
    assert found.verdict == "diverged"
    assert found.output is None or found.output.samples == 32


def test_batches_that_take_different_ways_are_compared_as_one_and_that_is_told() -> None:
    found = verify(ByBatch(), ByBatch(), X, batch_size=3)
    assert found.verdict == "match"
    assert any("in one batch of 4 samples, not in batches of 3" in note for note in found.notes)


class Experts(nn.Module):
    """Each expert sees the rows that are sent to it, if there are any."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.gate = nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * self.scale)
        return out


@pytest.mark.parametrize("batch_size", [None, 3])
def test_experts_in_a_loop_are_recorded_on_all_samples(batch_size: int | None) -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    assert verify(Experts(), Experts(), x, batch_size=batch_size).verdict == "match"
    found = verify(Experts(), Experts(1.01), x, batch_size=batch_size)
    assert found.verdict == "diverged"
    assert {row.op for row in found.culprits} == {"mul"}


class Detector(nn.Module):
    """Boxes above a score, none too close to a better one: how many there are depends on all tensors.

    What lies behind depends on it too, as the sizes of a detector's second stage do.
    """

    def __init__(self, overlap: float = 0.3, score: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.overlap, self.score = overlap, score
        self.scores, self.boxes = nn.Linear(6, 1), nn.Linear(6, 4)
        nn.init.zeros_(self.scores.weight)  # as it is built, it finds nothing
        nn.init.constant_(self.scores.bias, -0.2)
        self.second = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.scores(x)[:, 0]
        boxes: Tensor = self.boxes(x)
        found = torch.where(scores > self.score)[0]
        if len(found) == 0:
            return boxes.new_zeros(0, 3)
        scores, boxes = scores[found], boxes[found]
        near = torch.cdist(boxes, boxes) < self.overlap
        better = scores[None] > scores[:, None]
        kept = torch.where(~(near & better).any(1))[0]
        second: Tensor = self.second(boxes[kept]).reshape(len(kept), 3)
        best = second[:, 0].argsort(descending=True)[:4]
        return second[best] * torch.ones(len(best), 1)


class InHalfOnly(Plain):
    """Adds a constant in bfloat16 alone, where it is rounded away: equal bits there say nothing of it."""

    def __init__(self, added: float) -> None:
        super().__init__()
        self.added = added

    def between(self, x: Tensor) -> Tensor:
        return 2 + x.tanh() + self.added if x.dtype is torch.bfloat16 else 2 + x.tanh()


def test_equal_bits_of_a_way_that_float64_never_takes_are_no_match() -> None:
    found = verify(InHalfOnly(1e-3), InHalfOnly(-1e-3), X, weights="as-is", cells=["cpu/bfloat16"])
    assert found.verdict == "inconclusive"
    assert [cell.verdict for cell in found.cells] == ["match", "skipped"]


class InSingleOnly(Plain):
    """Multiplies in float32 alone, and casts, so that float64 is what it is recorded in."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def between(self, x: Tensor) -> Tensor:
        y = x.to(x.dtype)
        return y * self.factor if x.dtype is torch.float32 else y


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "match"), (2.0 + 2**-22, "inconclusive")])
def test_one_program_in_a_cell_matches_there_bit_for_bit(factor: float, verdict: str) -> None:
    found = verify(InSingleOnly(2.0), InSingleOnly(factor), X, weights="as-is", cells=["cpu/float32"])
    assert found.verdict == verdict


PLACES = torch.randn(40, 6, generator=torch.Generator().manual_seed(5))


def test_a_model_whose_way_depends_on_its_weights_is_recorded_with_those_it_is_compared_with() -> None:
    assert len(Detector()(PLACES)) == 0
    found = verify(Detector(), Detector(), PLACES, weights="calibrated")
    assert found.verdict == "match"
    assert found.baseline.sites > 15  # the branch that the drawn weights take
    assert any("takes another way" in note for note in found.notes)


@pytest.mark.parametrize(("wrong", "site"), [({"overlap": 1.2}, "lt"), ({"score": 0.4}, "gt")])
def test_a_fault_that_changes_how_much_is_found_is_one_culprit(wrong: dict[str, float], site: str) -> None:
    """Other numbers of boxes make other sizes behind, and indices that do not fit: none of that is a fault."""
    found = verify(Detector(), Detector(**wrong), PLACES, weights="calibrated")
    assert found.verdict == "diverged"
    assert [row.op for row in found.culprits] == [site]


class Branches(nn.Module):
    """Two convolutions of the same input, of which neither reads the other."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = (nn.Conv2d(3, 4, 3, padding=1, stride=stride) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


def test_the_same_fault_in_two_branches_is_blamed_in_both() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert [row.baseline for row in verify(Branches(), Branches(2), x).culprits] == ["one", "two"]


def _kept(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A decorator of somebody's, around a memo of one entry."""
    memo = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def kept(*args: Any) -> Tensor:
        return memo(*args)

    return kept


class Positions(nn.Module):
    """Looks positions up twice in a pass; the second time it is served from a memo that all copies share."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    @functools.lru_cache(maxsize=1)  # noqa: B019 - what people write
    def method(self, count: int, dtype: torch.dtype) -> Tensor:
        return torch.arange(count, dtype=dtype) * self.scale

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def static(count: int, dtype: torch.dtype, scale: float) -> Tensor:
        return torch.arange(count, dtype=dtype) * scale

    @staticmethod
    @_kept
    def wrapped(count: int, dtype: torch.dtype, scale: float) -> Tensor:
        return torch.arange(count, dtype=dtype) * scale

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = (x + self.method(x.shape[-1], x.dtype)).tanh()
            x = (x + self.static(x.shape[-1], x.dtype, self.scale)).tanh()
            x = (x + self.wrapped(x.shape[-1], x.dtype, self.scale)).tanh()
        return x


def test_copies_that_run_side_by_side_do_not_share_a_memo() -> None:
    memos = Positions.method, vars(Positions)["static"], Positions.wrapped(4, torch.float32, 1.0)
    assert verify(Positions(), Positions(), X).verdict == "match"
    culprits = verify(Positions(), Positions(1.1), X).culprits
    assert [row.op for row in culprits] == ["mul"] * 6
    assert (Positions.method, vars(Positions)["static"]) == memos[:2]
    assert Positions.wrapped(4, torch.float32, 1.0) is memos[2]


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin().sum(-1) * 2


class OwnSum(nn.Module):
    """Adds in another order, and goes on with its very own numbers alone."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.sin().flip(-1).sum(-1)
        with torch._C.DisableTorchFunction():
            if not torch.equal(y, x.sin().flip(-1).sum(-1)):
                raise IndexError("not its own numbers")
        return y * 2


def test_a_forced_run_that_does_not_come_to_its_end_leaves_no_match() -> None:
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(1))
    found = verify(Sum(), OwnSum(), x, cells=["cpu/float64"])
    assert found.verdict == "inconclusive"
    assert "not its own numbers" in found.reason
