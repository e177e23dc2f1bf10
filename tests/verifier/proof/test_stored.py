"""Stored tensors that are the other model's, rounded, are no difference; one step more is."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable


class Unit(nn.Module):
    def __init__(self, wide: int, out: int, **settings: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide, out, 3, bias=False, **settings)
        self.norm: nn.Module = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        Unit(3, 8, stride=2, padding=1), Unit(8, 8, groups=8, padding=1), Unit(8, 12, dilation=2, groups=2)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def folded(change: Callable[[nn.Sequential], object] = lambda _: None) -> nn.Sequential:
    model = net()
    change(model)
    for unit in model:
        parts: Any = unit
        parts.conv, parts.norm = fuse_conv_bn_eval(parts.conv, parts.norm), nn.Identity()
    return model.eval()


def images() -> Tensor:
    return torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_a_batch_norm_folded_into_its_convolution_is_a_match() -> None:
    found = verify(net(), folded(), images(), weights="as-is")
    assert found.verdict == "match", found.reason
    assert any(
        "stored weights: 6 tensors of the candidate are the baseline's, rounded" in n for n in found.notes
    )


def test_a_batch_norm_folded_with_another_eps_is_found() -> None:
    def other_eps(model: nn.Sequential) -> None:
        model[1].norm.eps = 1.1e-5  # type: ignore[union-attr]

    found = verify(net(), folded(other_eps), images(), weights="as-is")
    assert found.verdict == "diverged"
    assert [row.candidate for row in found.culprits] == ["1.conv"]


@pytest.mark.parametrize(("steps", "verdict"), [(0, "match"), (20, "diverged")])
def test_units_in_the_last_place_beyond_rounding_are_a_fault(steps: int, verdict: str) -> None:
    model = folded()
    last: Any = model[2]
    last.conv.weight.data.view(torch.int32)[0] += steps
    found = verify(net(), model, images(), weights="as-is")
    assert found.verdict == verdict


class Rotary(nn.Module):
    """Angles from a table: kept as it was computed in float32, or computed in the forward pass."""

    def __init__(self, *, kept: bool, base: float = 10000.0) -> None:
        super().__init__()
        self.base, self.kept = base, kept
        self.layer = nn.Linear(8, 8)
        if kept:
            self.register_buffer("rates", 1.0 / base ** (torch.arange(0, 8, 2) / 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rates: Any = (
            self.rates if self.kept else self.base ** -(torch.arange(0, 8, 2, dtype=torch.float32) / 8)
        )
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * rates.to(x.dtype)
        a, b = self.layer(x).chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def tokens() -> Tensor:
    return torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))


def test_a_table_that_is_kept_matches_one_that_is_computed_either_way_round() -> None:
    for kept in (True, False):
        found = verify(Rotary(kept=kept), Rotary(kept=not kept), tokens())
        assert found.verdict == "match", found.reason


def test_a_table_of_another_base_is_found() -> None:
    assert verify(Rotary(kept=True), Rotary(kept=False, base=10001.0), tokens()).verdict == "diverged"


class Shifted(nn.Module):
    """A layer and an offset that is the difference of nearly equal numbers: computed, or kept in float32."""

    def __init__(self, *, kept: bool, off: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)
        self.kept = kept
        bias, mean = torch.randn(8), torch.randn(8)
        mean[3] = bias[3] / 0.7 * (1 + 1e-4)
        offset = bias - mean * (torch.tensor(0.7) * (1 + 2**-23))  # as if by another way to a root
        offset[5] += off
        held = {"offset": offset} if kept else {"bias": bias, "mean": mean}
        for name, tensor in held.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        held: Any = self
        offset = held.offset if self.kept else held.bias - held.mean * 0.7
        made: Tensor = self.layer(x) + offset
        return made


@pytest.mark.parametrize(("off", "verdict"), [(0.0, "match"), (1e-5, "diverged")])
def test_terms_that_cancel_leave_the_rounding_of_each(off: float, verdict: str) -> None:
    found = verify(Shifted(kept=False), Shifted(kept=True, off=off), tokens(), weights="as-is")
    assert found.verdict == verdict, found.reason


class Angles(nn.Module):
    """Tokens turned by angles, as far as the tokens go, of a table of `kept` rows; of 0 rows it is computed."""

    def __init__(self, kept: int, *, looked_up: bool = False, start: int = 0, off: float = 0.0) -> None:
        super().__init__()
        self.kept, self.looked_up, self.start = kept, looked_up, start
        self.layer = nn.Linear(8, 8)
        if kept:
            angles = self.angles(kept, torch.float32)
            cos = angles.cos()
            cos[2, 1] += off
            self.register_buffer("cos", cos.repeat(1, 2)[None], persistent=False)
            self.register_buffer("sin", angles.sin().repeat(1, 2)[None], persistent=False)

    @staticmethod
    def angles(count: int, dtype: torch.dtype) -> Tensor:
        """(count, 4)."""
        return torch.outer(
            torch.arange(count, dtype=dtype), 10000.0 ** -(torch.arange(0, 8, 2, dtype=dtype) / 8)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 8) to the same shape."""
        x = self.layer(x)
        end = self.start + x.shape[1]
        if self.kept:
            assert isinstance(self.cos, Tensor)
            assert isinstance(self.sin, Tensor)
            places = torch.arange(self.start, end) if self.looked_up else slice(self.start, end)
            cos, sin = self.cos[:, places], self.sin[:, places]
        else:
            angles = self.angles(x.shape[1], x.dtype)
            cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin


@pytest.mark.parametrize("looked_up", [False, True])
def test_of_a_longer_table_what_is_read_matches_what_is_computed_either_way_round(looked_up: bool) -> None:
    for rows in ((0, 32), (32, 0)):
        b, c = (Angles(kept, looked_up=looked_up) for kept in rows)
        found = verify(b, c, tokens())
        assert found.verdict == "match", found.reason


@pytest.mark.parametrize("fault", [{"start": 1}, {"off": 1e-6}])
@pytest.mark.parametrize("looked_up", [False, True])
def test_a_longer_table_that_is_read_elsewhere_or_wrong_is_found(
    looked_up: bool, fault: dict[str, Any]
) -> None:
    assert verify(Angles(0), Angles(32, looked_up=looked_up, **fault), tokens()).verdict == "diverged"


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 6)), nn.Tanh()
    ).eval()


def test_a_weight_norm_that_was_removed_leaves_rounded_weights() -> None:
    model, removed = normed(), normed()
    removed.load_state_dict(model.state_dict())
    parametrize.remove_parametrizations(removed[2], "weight")
    found = verify(model, removed, tokens(), weights="as-is")
    assert found.verdict == "match", found.reason
    changed: Any = removed[2]
    changed.weight.data[0, 0] *= 1.0001
    assert verify(model, removed, tokens(), weights="as-is").verdict == "diverged"


@pytest.mark.parametrize("kept", ["what is computed", "the weight whose norm is taken"])
@pytest.mark.parametrize(("step", "verdict"), [(0.0, "match"), (2e-6, "diverged")])
def test_a_weight_that_is_all_but_the_one_its_norm_was_taken_of_is_rounded(
    kept: str, step: float, verdict: str
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.ConvTranspose1d(8, 3, 4, 2)).eval()
    removed: Any = copy.deepcopy(model)
    normed: Any = parametrizations.weight_norm(model[2])
    with torch.no_grad():
        if kept == "what is computed":
            removed[2].weight.copy_(normed.weight)
        removed[2].weight[1] *= 1 + step
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
    assert verify(model, removed, x, weights="as-is").verdict == verdict
    assert verify(removed, model, x, weights="as-is").verdict == verdict


class ByHand(nn.Module):
    """A norm on running statistics that is laid out otherwise and whose names tell nothing."""

    m: Tensor
    v: Tensor

    def __init__(self, of: nn.BatchNorm2d, eps: float) -> None:
        super().__init__()
        shape = (1, -1, 1, 1)
        self.g, self.h = (nn.Parameter(each.detach().reshape(shape)) for each in (of.weight, of.bias))
        assert of.running_mean is not None
        assert of.running_var is not None
        self.register_buffer("m", of.running_mean.reshape(shape))
        self.register_buffer("v", of.running_var.reshape(shape))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.m) * torch.rsqrt(self.v + self.eps) * self.g + self.h


@pytest.mark.parametrize(("eps", "verdict"), [(1e-5, "match"), (2e-5, "diverged")])
def test_a_variance_that_both_keep_is_not_its_sum_with_a_small_eps(eps: float, verdict: str) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm.running_mean = torch.randn(8)
    norm.running_var = torch.linspace(1000, 5000, 8)
    convolutions = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)
    convolutions[0].weight.data *= 100
    model = nn.Sequential(convolutions[0], norm, nn.ReLU(), convolutions[1]).eval()
    parts = copy.deepcopy(
        {"a": convolutions[0], "b": ByHand(norm, eps), "c": nn.ReLU(), "d": convolutions[1]}
    )
    by_hand = nn.Sequential(OrderedDict(parts)).eval()
    assert verify(model, by_hand, images(), weights="as-is").verdict == verdict
    assert verify(by_hand, model, images(), weights="as-is").verdict == verdict


class Branches(nn.Module):
    """Three branches with norms of their own, or the one convolution that they are when merged."""

    def __init__(self, wide: int, *, merged: bool) -> None:
        super().__init__()
        self.merged = merged
        if merged:
            self.conv = nn.Conv2d(wide, wide, 3, padding=1)
        else:
            self.three = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
            self.one = nn.Conv2d(wide, wide, 1, bias=False)
            self.scale = nn.Parameter(torch.rand(wide, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return torch.relu(self.conv(x))
        return torch.relu(self.three(x) * self.scale + self.one(x) + x)

    def merge(self, error: float = 0.0) -> Branches:
        made = Branches(len(self.scale), merged=True)
        weight = self.three.weight.data * self.scale.data[..., None] * (1 + error)
        weight = weight + nn.functional.pad(self.one.weight.data, (1, 1, 1, 1))
        weight[range(len(weight)), range(len(weight)), 1, 1] += 1
        made.conv.weight.data, made.conv.bias.data = weight, torch.zeros(len(weight))  # type: ignore[union-attr]
        return made


def test_branches_that_were_merged_into_one_convolution_pair_where_the_numbers_agree_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Branches(6, merged=False), Branches(6, merged=False)).eval()
    for error, verdict in ((0.0, "match"), (1e-5, "diverged")):
        merged = nn.Sequential(model[0], model[1].merge(), model[2].merge(error)).eval()  # type: ignore[operator]
        found = verify(model, merged, images(), weights="as-is")
        assert found.verdict == verdict, found.reason


def test_what_was_folded_is_kept_where_the_baselines_tensors_are_taken_over() -> None:
    assert verify(net(), folded(), images()).verdict == "match"


class BehindANorm(nn.Module):
    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer = norm, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.norm(x))
        return y


@pytest.mark.parametrize("weights", ["transfer", "as-is"])
def test_an_eps_too_small_to_show_is_no_rounding_of_weights_that_both_hold(weights: str) -> None:
    x = 10 * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    baseline = BehindANorm(lambda x: nn.functional.rms_norm(x, (8,), None, 1e-5))

    def by_hand(eps: float) -> nn.Module:
        return BehindANorm(lambda x: x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt())

    assert verify(baseline, by_hand(1e-5), x, weights=weights).verdict == "match"
    found = verify(baseline, by_hand(1e-6), x, weights=weights)
    assert found.verdict == "diverged"
    assert [culprit.cause.status for culprit in found.culprits if culprit.cause] == ["confirmed"]


class Scaled(nn.Module):
    """A table that is multiplied by a number, or holds what that gives."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        y: Tensor = self.last(torch.tanh(x if self.scale is None else x * self.scale))
        return y


@pytest.mark.parametrize(("folded", "verdict"), [(8**0.5, "match"), (8**0.5 * 1.0001, "diverged")])
def test_a_factor_may_be_folded_into_a_table(folded: float, verdict: str) -> None:
    baseline, candidate = Scaled(8**0.5), Scaled(None)
    with torch.no_grad():
        candidate.table.weight.mul_(folded)
    tokens = torch.randint(0, 20, (3, 5), generator=torch.Generator().manual_seed(1))
    assert verify(baseline, candidate, tokens, weights="as-is").verdict == verdict


class Normed(nn.Module):
    """A layer norm between layers, with gains and offsets of its own or in the layers behind it."""

    def __init__(self, *, eps: float = 1e-5, folded: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(8, 16), nn.LayerNorm(16, eps)
        self.one, self.two = nn.Linear(16, 4), nn.Linear(16, 4)
        gain, offset = 0.5 + torch.rand(16), torch.randn(16)
        with torch.no_grad():
            self.norm.weight.copy_(gain)
            self.norm.bias.copy_(offset)
            if folded:
                for layer in (self.one, self.two):
                    layer.bias.add_(layer.weight @ offset)
                    layer.weight.mul_(gain)
                self.norm = nn.LayerNorm(16, eps, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        y: Tensor = self.one(x) * torch.tanh(self.two(x))
        return y


@pytest.mark.parametrize(("eps", "verdict"), [(1e-5, "match"), (2e-5, "diverged")])
def test_gains_and_offsets_of_a_norm_may_be_folded_into_all_layers_behind_it(
    eps: float, verdict: str
) -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    assert verify(Normed(), Normed(eps=eps, folded=True), x, weights="as-is").verdict == verdict


class Scored(nn.Module):
    """Attention whose scores are divided, or whose projections are, by the same in all."""

    def __init__(self, *, q: float = 1.0, k: float = 1.0, folded: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.last, self.folded = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), folded
        with torch.no_grad():
            for layer, factor in ((self.q, q), (self.k, k)):
                layer.weight.mul_(factor)
                layer.bias.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).mT
        y: Tensor = self.last((scores if self.folded else scores / 8**0.5).softmax(-1) @ x)
        return y


@pytest.mark.parametrize(
    ("q", "k", "verdict"),
    [(8**-0.5, 1.0, "match"), (8**-0.25, 8**-0.25, "match"), (7**-0.5, 1.0, "diverged")],
)
def test_what_divides_scores_may_be_folded_into_what_makes_them(q: float, k: float, verdict: str) -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    assert verify(Scored(), Scored(q=q, k=k, folded=True), x, weights="as-is").verdict == verdict
