"""The whole verification: planted faults are found, nothing else is, and nothing is disturbed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reports import terminal
from reports.headline import headline
from tests.networks import Block, Rewritten, images, network
from tests.verifier.align.test_matching import ReLUBeforeAdd, WithoutFirstReLU
from verifier import Status, UsageError, Verdict, verify
from verifier.errors import GraphDepartureError, InputError, ModelError
from verifier.models.copying import state_of

if TYPE_CHECKING:
    from verifier.records import PairResult


def sites(rows: tuple[PairResult, ...]) -> list[str | None]:
    return [row.baseline for row in rows]


@pytest.mark.parametrize("weights", ["transfer", "calibrated"])
def test_a_rewrite_matches(weights: str) -> None:
    result = verify(network(), network(Rewritten, seed=1), images(batch=4), weights=weights)
    assert result.verdict is Verdict.MATCH
    assert str(result.verdict) == "match"
    assert result.first_divergence is None
    assert result.culprits == ()
    assert result.coverage.baseline_share == result.coverage.candidate_share == 1
    assert {row.status for row in result.layers} == {Status.OK}
    assert all(criterion.passed for criterion in result.criteria)
    assert len(result.criteria) == 3


Fault = Callable[[Any], None]


def eps(model: Any) -> None:
    model[2].bn1.eps = 1e-3


def slight_eps(model: Any) -> None:
    model[2].bn1.eps = 1.1e-5


def weight(model: Any) -> None:
    with torch.no_grad():
        model[2].conv2.weight *= 1 + 1e-4


def mean(model: Any) -> None:
    model[2].downsample[1].running_mean += 1e-3


def train(model: Any) -> None:
    model[3].bn2.train()


def padding_mode(model: Any) -> None:
    model[3].conv1.padding_mode = "reflect"
    model[3].conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]


def gelu(model: Any) -> None:
    model[1].relu = nn.GELU()


def swapped(model: Any) -> None:
    model[1].conv1.weight, model[1].conv2.weight = model[1].conv2.weight, model[1].conv1.weight


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (eps, ["2.bn1"]),
        (slight_eps, ["2.bn1"]),
        (weight, ["2.conv2"]),
        (mean, ["2.downsample.1"]),
        (train, ["3.bn2"]),
        (gelu, ["1.relu", "1.relu_1"]),
        (swapped, ["1.conv1", "1.conv2"]),
    ],
)
def test_a_planted_fault_is_blamed_and_nothing_else(fault: Fault, expected: list[str]) -> None:
    broken = network()
    fault(broken)
    result = verify(network(), broken, images())
    assert result.verdict == "diverged"
    assert sites(result.culprits) == expected
    assert result.first_divergence is not None
    assert result.first_divergence.baseline == expected[0]
    assert [row.baseline for row in result.layers if row.status is Status.CULPRIT] == expected
    assert result.first_divergence in result.layers


def test_a_missing_activation_is_the_first_divergence() -> None:
    broken = network()
    broken[2].__class__ = WithoutFirstReLU
    result = verify(network(), broken, images())
    first = result.first_divergence
    assert first is not None
    assert (first.baseline, first.candidate, first.op, first.status) == ("2.relu", None, "relu", "unmatched")
    assert "no relu here" in first.reason
    assert sites(result.culprits) == ["2.relu"]
    assert result.coverage.unmatched[0].name == "2.relu"


def test_a_moved_activation_is_named_where_the_operators_first_differ() -> None:
    broken = network()
    broken[2].__class__ = ReLUBeforeAdd
    first = verify(network(), broken, images()).first_divergence
    assert first is not None
    assert (first.baseline, first.candidate) == ("2.add", "2.relu_1")


def test_an_extra_operator_at_the_end_is_found() -> None:
    result = verify(network(), nn.Sequential(network(), nn.Softmax(1)).eval(), images())
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert result.first_divergence.candidate == "1"
    assert "softmax" in result.first_divergence.reason


def test_several_faults_are_all_named_in_one_run() -> None:
    broken = network()
    for fault in (eps, weight, train):
        fault(broken)
    assert sites(verify(network(), broken, images()).culprits) == ["2.bn1", "2.conv2", "3.bn2"]


def test_a_stride_elsewhere_is_named_by_its_shape() -> None:
    broken = network()
    broken[2].conv1.stride = (2, 2)
    broken[2].conv2 = nn.ConvTranspose2d(4, 4, 2, stride=2, bias=False)
    first = verify(network(), broken, images()).first_divergence
    assert first is not None
    assert first.baseline == "2.conv1"
    assert first.candidate_shape == (2, 4, 4, 4)
    assert "stride 2, baseline 1" in first.reason


@pytest.mark.parametrize("rewrite", [network, lambda: network(Rewritten)])
def test_nothing_is_blamed_where_nothing_is_wrong(rewrite: Callable[[], nn.Module]) -> None:
    for variant in ("plain", "channels_last", "split"):
        candidate = rewrite()
        x = images(batch=4)
        if variant == "channels_last":
            candidate = candidate.to(memory_format=torch.channels_last)
        result = verify(
            network(), candidate, x, batch_size=3 if variant == "split" else None, localise="always"
        )
        assert result.verdict == "match", (variant, result.reason)


def test_semantics_finds_what_bfloat16_cannot_see() -> None:
    broken = network()
    broken[2].bn1.eps = 2e-5
    result = verify(network(), broken, images(), cells=("cpu/bfloat16",), weights="calibrated")
    assert [cell.verdict for cell in result.cells] == ["diverged", "match"]
    assert sites(result.culprits) == ["2.bn1"]


def test_without_semantics_float32_alone_judges() -> None:
    broken = network()
    eps(broken)
    result = verify(network(), broken, images(), semantics=False, weights="calibrated")
    assert [cell.name for cell in result.cells] == ["cpu/float32"]
    assert sites(result.culprits) == ["2.bn1"]


def test_without_forced_passes_the_first_divergence_is_still_exact() -> None:
    broken = network()
    eps(broken)
    result = verify(network(), broken, images(), localise=False)
    assert result.first_divergence is not None
    assert result.first_divergence.baseline == "2.bn1"
    assert all(row.intrinsic is None for row in result.layers)
    assert result.culprits == ()


def test_batches_are_merged_into_one_measurement() -> None:
    broken = network()
    eps(broken)
    whole, split = (verify(network(), broken, images(batch=7), batch_size=size) for size in (None, 3))
    a, b = whole.cells[1].layers[-1].total, split.cells[1].layers[-1].total
    assert a is not None
    assert b is not None
    assert b.elements == a.elements == 35
    # kernels differ with the batch size, so float32 values do in their last digits
    assert b.mse == pytest.approx(a.mse, rel=1e-3)
    assert whole.cells[1].batch_size == split.cells[1].batch_size == 7


def test_nothing_is_disturbed() -> None:
    a, b = network(), network(Rewritten, seed=1)
    a[1].bn1.train()
    before = [{k: v.clone() for k, v in state_of(m).items()} for m in (a, b)]
    modes = [[m.training for m in model.modules()] for model in (a, b)]
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002 - the global state is meant
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    verify(a, b, images(), weights="calibrated")
    for model, kept, mode in zip((a, b), before, modes, strict=True):
        assert all(kept[name].equal(tensor) for name, tensor in state_of(model).items())
        assert [m.training for m in model.modules()] == mode
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == repr(np.random.get_state())  # noqa: NPY002
    assert torch.is_grad_enabled()


def test_inputs_are_not_written_even_by_models_that_write_theirs() -> None:
    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2).relu_()

    x = images()
    kept = x.clone()
    assert verify(Greedy(), Greedy(), x).verdict == "match"
    assert torch.equal(x, kept)


def test_it_works_from_inside_inference_mode() -> None:
    with torch.inference_mode():
        assert verify(network(), network(Rewritten), images()).verdict == "match"
        assert torch.is_inference_mode_enabled()


class ByHand(nn.Module):
    """A linear layer and a sigmoid, number by number: dozens of operators with nothing in common but the result."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for i in range(4):
            total = self.bias[i]
            for j in range(6):
                total = total + x[:, j] * self.weight[i, j]
            rows.append(1 / (1 + (-total).exp()))
        return torch.stack(rows, 1)


def test_dozens_of_operators_are_compared_where_the_result_depends_on_them() -> None:
    result = verify(nn.Sequential(nn.Linear(6, 4), nn.Sigmoid()), ByHand(), torch.randn(3, 6))
    assert result.verdict == "match"


def test_a_thin_alignment_is_inconclusive() -> None:
    class Apart(ByHand):
        """The same of a parameter a number, which no map can tell."""

        def __init__(self, weight: Tensor, bias: Tensor) -> None:
            super().__init__()
            del self.weight, self.bias
            self.numbers = nn.ParameterList(nn.Parameter(number.clone()) for number in weight.flatten())
            self.bias = nn.Parameter(bias.clone())

        def forward(self, x: Tensor) -> Tensor:
            self.weight = {(i, j): self.numbers[6 * i + j] for i in range(4) for j in range(6)}  # type: ignore[assignment]
            return super().forward(x)

    linear = nn.Linear(6, 4)
    by_hand = Apart(linear.weight.detach(), linear.bias.detach())
    result = verify(nn.Sequential(linear, nn.Sigmoid()), by_hand, torch.randn(3, 6))
    assert result.verdict == "inconclusive"
    assert "could be paired" in result.reason


def test_one_operator_and_a_few_are_compared_as_a_whole() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = 1 / (1 + (-self.inner(x)).exp())
            return result

    result = verify(nn.Sequential(nn.Linear(6, 4), nn.Sigmoid()), Written(), torch.randn(3, 6))
    assert result.verdict == "match"
    together = [site.name for site in result.coverage.unmatched if site.compared_at == "the output"]
    assert together == ["1", "neg", "exp", "add", "rdiv"]
    assert (result.coverage.baseline_share, result.coverage.candidate_share) == (1, 1)


def test_several_inputs_and_dict_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor, *, mask: Tensor) -> dict[str, Tensor]:
            return {"sum": self.a(x) + self.b(mask), "mask": mask * 2}

    given = {"x": torch.randn(2, 3), "mask": torch.ones(2, 3)}
    result = verify(Two(), Two(), given)
    assert result.verdict == "match"
    assert result.coverage.outputs == (2, 2)


@dataclass
class Scores:
    """What a model may return."""

    scores: Tensor
    features: Tensor


class Returning(nn.Module):
    """Returns scores and features in some form."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form, self.a, self.b = form, nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        features = torch.tanh(self.a(x))
        return self.form(self.b(features), features)


@pytest.mark.parametrize(
    "form",
    [
        lambda scores, features: (scores, features),
        lambda scores, features: {"scores": scores, "features": features},
        lambda scores, features: {"features": features, "scores": scores},
        Scores,
    ],
    ids=["tuple", "dict", "dict in another order", "dataclass"],
)
def test_outputs_are_compared_by_name_or_else_in_their_order(form: Callable[[Tensor, Tensor], Any]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3)
    found = verify(Returning(Scores), Returning(form), x)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    crossed = verify(Returning(Scores), Returning(lambda scores, features: form(features, scores)), x)
    assert crossed.verdict is Verdict.DIVERGED


def test_other_names_of_outputs_are_no_match_unless_their_order_counts() -> None:
    torch.manual_seed(0)
    baseline, x = Returning(Scores), torch.randn(2, 3)
    candidate = Returning(lambda s, f: {"zeta": s, "alpha": f})
    found = verify(baseline, candidate, x)
    assert found.verdict is Verdict.DIVERGED
    assert "returns scores, features, the candidate zeta, alpha" in found.reason
    found = verify(baseline, candidate, x, outputs="by-order")
    assert found.verdict is Verdict.MATCH
    told = [each.summary for each in found.static if each.kind == "output"]
    assert told == ["it returns zeta, alpha; the baseline scores, features"]


def test_of_outputs_without_names_it_is_said_that_they_have_none() -> None:
    torch.manual_seed(0)
    named, bare = Returning(lambda s, f: {"logits": s}), Returning(lambda s, f: s)
    for baseline, candidate, said in (
        (named, bare, ["it returns no names; the baseline logits"]),
        (bare, bare, []),
    ):
        found = verify(baseline, candidate, torch.randn(2, 3))
        assert [each.summary for each in found.static if each.kind == "output"] == said


def test_a_number_that_is_added_is_no_residual() -> None:
    class Shifted(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(torch.add(x, self.shift))

    (culprit,) = verify(Shifted(3.0), Shifted(1.0), torch.randn(2, 3)).culprits
    assert culprit.cause is not None
    assert culprit.cause.confirmed
    assert not culprit.cause.code.startswith("residual")


def test_rows_of_a_table_that_no_token_reaches_are_told_and_are_no_fault() -> None:
    torch.manual_seed(0)
    baseline = nn.Embedding(20, 4)
    candidate = copy.deepcopy(baseline)
    with torch.no_grad():
        candidate.weight[17] += 1
    found = verify(baseline, candidate, torch.arange(6).reshape(2, 3), weights="as-is")
    assert found.verdict is Verdict.MATCH
    assert "; 1 tensor differs, which no input reached" in headline(found)
    assert "weight: it differs in 1 of 20 rows only (17)" in terminal.plain(found)


def test_a_non_finite_value_on_one_side_never_passes() -> None:
    class Holed(Block):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            out[0, 0, 0, 0] = float("nan")
            return out

    broken = network()
    broken[2].__class__ = Holed
    result = verify(network(), broken, images())
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert result.first_divergence.candidate is not None
    assert result.first_divergence.candidate.startswith("2.setitem")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"cells": ()}, UsageError, "no cell"),
        ({"cells": ("cpu/float33",)}, UsageError, "float32"),
        ({"cells": ("cpu",)}, UsageError, "DEVICE/DTYPE"),
        ({"localise": "sometimes"}, UsageError, "auto"),
        ({"inputs": torch.randn(2, 5, 8, 8)}, InputError, r"shape \(2, 5, 8, 8\)"),
        ({"inputs": 3}, InputError, "int"),
        ({"baseline": 3}, UsageError, "not a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    given = {"baseline": network(), "candidate": network(), "inputs": images()} | arguments
    with pytest.raises(error, match=words):
        verify(**given)


def test_a_candidate_that_fails_is_not_the_inputs_fault() -> None:
    broken = network()
    broken[6] = nn.Linear(3, 5)
    with pytest.raises(
        ModelError, match=r"candidate .* fails on inputs that the baseline takes: RuntimeError"
    ):
        verify(network(), broken, images())


def test_a_copy_pruned_everywhere_is_no_match() -> None:
    pruned = network()
    with torch.no_grad():
        for parameter in pruned.parameters():
            if parameter.dim() > 1:
                parameter.mul_(parameter.abs() > parameter.abs().median())
    result = verify(network(), pruned, images())
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert result.first_divergence.baseline == "0"


class SwappedUse(Block):
    """Uses its two convolutions in each other's place."""

    def forward(self, x: Tensor) -> Tensor:
        self.conv1, self.conv2 = self.conv2, self.conv1
        try:
            result: Tensor = super().forward(x)
            return result
        finally:
            self.conv1, self.conv2 = self.conv2, self.conv1


@pytest.mark.parametrize("weights", ["transfer", "calibrated", "init"])
def test_a_copy_that_uses_two_tensors_in_each_others_place_is_no_match(weights: str) -> None:
    broken = network()
    broken[1].__class__ = SwappedUse
    assert verify(network(), broken, images(), weights=weights).verdict == "diverged"


def test_models_that_write_what_they_own_write_into_copies() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.average: Tensor
            self.embedding = nn.Embedding(10, 8, max_norm=0.5)
            self.register_buffer("average", torch.zeros(8))
            self.count = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            y = self.embedding(x)
            self.average.data.mul_(0.9).add_(y.mean((0, 1)))
            self.count += 1
            result: Tensor = y + self.average + self.count
            return result

    torch.manual_seed(0)
    a, b = Writing(), Writing()
    kept = [a.embedding.weight.detach().clone(), a.average.clone(), a.count.clone()]
    assert verify(a, b, torch.arange(6).reshape(2, 3)).verdict == "match"
    assert all(torch.equal(x, y) for x, y in zip(kept, [a.embedding.weight, a.average, a.count], strict=True))


def test_a_forced_pass_does_not_write_into_the_inputs() -> None:
    class Head(nn.Module):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.start = start

        def forward(self, x: Tensor) -> Tensor:
            return x[:, self.start : self.start + 4] * 2

    x = torch.randn(3, 6)
    kept = x.clone()
    assert verify(Head(0), Head(1), x, localise="always").verdict == "diverged"
    assert torch.equal(x, kept)


def test_models_that_draw_random_numbers_draw_the_same() -> None:
    assert verify(nn.Dropout(), nn.Dropout(), torch.ones(4, 50)).verdict == "match"


def test_unbatched_inputs_are_inputs() -> None:
    assert verify(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), torch.randn(3, 16, 16)).verdict == "match"


def test_outputs_are_compared_by_their_keys() -> None:
    class Keys(nn.Module):
        def __init__(self, *, swapped: bool) -> None:
            super().__init__()
            self.swapped = swapped

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            a, b = x + 1, x * 3
            return {"b": a, "a": b} if self.swapped else {"a": a, "b": b}

    assert verify(Keys(swapped=False), Keys(swapped=True), torch.randn(2, 3)).verdict == "diverged"


def test_a_linear_layer_written_out_is_the_same_layer() -> None:
    class Written(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t() + self.bias

    a = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    b = nn.Sequential(Written(3, 4), nn.ReLU(), nn.Linear(4, 2))
    result = verify(a, b, torch.randn(5, 3))
    assert result.first_divergence is None
    assert result.weights.parameter_map["0.weight"] == "0.weight"


def test_a_model_with_threads_of_its_own_is_refused() -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            with ThreadPoolExecutor(2) as pool:
                return torch.stack(list(pool.map(lambda part: part(x), self.parts)))

    with pytest.raises(GraphDepartureError, match="threads of its own"):
        verify(Threaded(), Threaded(), torch.randn(2, 3))


def test_lazy_parameters_are_refused_in_a_sentence() -> None:
    lazy = nn.LazyLinear(3)
    with pytest.raises(UsageError, match="Run it once"):
        verify(lazy, nn.Linear(2, 3), torch.randn(1, 2))


def test_a_policy_is_taken_by_name_as_at_a_terminal() -> None:
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    assert verify(model, model, x, policy="task").policy == "task"
    with pytest.raises(UsageError, match="Use strict, criteria, task"):
        verify(model, model, x, policy="lenient")
