"""Models built from other operators: what numbers settle, and what they must not gloss over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEADS = 12, 3


class Conv1D(nn.Module):
    """GPT-2's linear layer, which stores its weight as (in, out)."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(into, out) * 0.3),
            nn.Parameter(torch.randn(out) * 0.3),
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Attention with three projections (`apart`) or one, whose rows are blocks or go head by head."""

    def __init__(self, layer: Callable[[int, int], nn.Module], form: str) -> None:
        super().__init__()
        self.form = form
        if form == "apart":  # defined in another order than they are used in
            self.v, self.k, self.q = (layer(WIDTH, WIDTH) for _ in range(3))
        else:
            self.qkv = layer(WIDTH, 3 * WIDTH)
        self.out = layer(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, WIDTH) to the same shape."""
        n, tokens, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        if self.form == "apart":
            q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
            mixed = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        else:
            if self.form == "blocks":
                q, k, v = (heads(y) for y in self.qkv(x).split(WIDTH, -1))
            elif self.form == "values first":
                v, k, q = (heads(y) for y in self.qkv(x).split(WIDTH, -1))
            else:
                q, k, v = self.qkv(x).reshape(n, tokens, HEADS, 3, -1).permute(3, 0, 2, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, WIDTH))
        return out


@pytest.mark.parametrize("form", ["blocks", "values first", "head by head"])
@pytest.mark.parametrize("fused_is", ["candidate", "baseline"])
@pytest.mark.parametrize("layers", [(nn.Linear, Conv1D), (Conv1D, nn.Linear), (Conv1D, Conv1D)])
def test_projections_are_shared_out_however_they_are_stored(
    form: str, fused_is: str, layers: tuple[Callable[[int, int], nn.Module], ...]
) -> None:
    torch.manual_seed(0)
    models = [Attention(layers[0], "apart"), Attention(layers[1], form)]
    if fused_is == "baseline":
        models.reverse()
    found = verify(models[0], models[1], torch.randn(2, 5, WIDTH))
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert found.weights.unmapped_candidate == found.weights.unmapped_baseline == ()


def test_rows_of_one_fused_projection_in_another_order_are_no_match() -> None:
    torch.manual_seed(0)
    models = Attention(nn.Linear, "blocks"), Attention(nn.Linear, "values first")
    assert verify(*models, torch.randn(2, 5, WIDTH)).verdict is Verdict.DIVERGED


class Gated(nn.Module):
    """A gated layer with two projections, or one in the order up, gate."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused, self.last = fused, nn.Linear(8, 8)
        if fused:
            self.both = nn.Linear(8, 16)
        else:
            self.gate, self.up = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            up, gate = self.both(x).chunk(2, -1)
        else:
            gate, up = self.gate(x), self.up(x)
        y: Tensor = self.last(F.silu(gate) * up)
        return y


def test_a_copy_that_was_edited_after_it_was_fused_keeps_its_edit() -> None:
    torch.manual_seed(0)
    a, b = Gated(fused=False), Gated(fused=True)
    b.last.load_state_dict(a.last.state_dict())
    with torch.no_grad():
        b.both.weight.copy_(torch.cat([a.up.weight, a.gate.weight]))
        b.both.bias.copy_(torch.cat([a.up.bias, a.gate.bias]))
    x = torch.randn(4, 8)
    assert verify(a, b, x).verdict is Verdict.MATCH
    with torch.no_grad():
        b.both.weight[:3] = 0
    assert verify(a, b, x).verdict is Verdict.DIVERGED


def test_a_copy_that_was_fused_in_an_order_its_program_does_not_mean_is_no_match() -> None:
    torch.manual_seed(0)
    a, b = Gated(fused=False), Gated(fused=True)
    b.last.load_state_dict(a.last.state_dict())
    with torch.no_grad():
        b.both.weight.copy_(torch.cat([a.gate.weight, a.up.weight]))
        b.both.bias.copy_(torch.cat([a.gate.bias, a.up.bias]))
    assert verify(a, b, torch.randn(4, 8)).verdict is Verdict.DIVERGED


class Convolved(nn.Module):
    """1 x 1 convolutions, or linear layers over channels that come last."""

    def __init__(self, *, last: bool, back: bool = True) -> None:
        super().__init__()
        self.last, self.back = last, back
        self.a, self.b = (nn.Linear(8, 8) if last else nn.Conv2d(8, 8, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if self.last else x
        y: Tensor = self.b(F.relu(self.a(x)))
        return y.permute(0, 3, 1, 2) if self.last and self.back else y


@pytest.mark.parametrize(
    "size", [(6, 5), (8, 8)], ids=["other sizes", "as many channels as rows and columns"]
)
def test_a_layout_is_recognised_whatever_the_sizes_and_told(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    found = verify(Convolved(last=False), Convolved(last=True), torch.randn(2, 8, *size))
    assert found.verdict is Verdict.MATCH
    told = {row.baseline: row.layout for row in found.layers if row.layout}
    assert told["a"] == told["relu"] == f"permute(0, 2, 3, 1) gives (2, {size[0]}, {size[1]}, 8)"


def test_what_is_returned_must_be_laid_out_as_the_baselines() -> None:
    torch.manual_seed(0)
    found = verify(Convolved(last=False), Convolved(last=True, back=False), torch.randn(2, 8, 6, 5))
    assert found.verdict is Verdict.DIVERGED
    assert [culprit.baseline for culprit in found.culprits] == ["output"]


class Inside(nn.Module):
    """Layers on (N, tokens, width); inside, tokens may come first or be flattened into the batch."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = {"first": lambda: x.transpose(0, 1), "flat": lambda: x.reshape(-1, 8)}.get(self.form, lambda: x)()
        for layer in self.layers:
            x = F.relu(layer(x))
        x = {"first": lambda: x.transpose(0, 1), "flat": lambda: x.view(n, -1, 8)}.get(self.form, lambda: x)()
        y: Tensor = self.head(x.mean(1))
        return y


@pytest.mark.parametrize("form", ["first", "flat"])
def test_the_same_operators_on_tokens_laid_out_otherwise(form: str) -> None:
    torch.manual_seed(0)
    assert verify(Inside("as given"), Inside(form), torch.randn(3, 5, 8)).verdict is Verdict.MATCH


class Raw(nn.Module):
    """Three projections as layers, or as products and sums of bare parameters."""

    def __init__(self, *, raw: bool) -> None:
        super().__init__()
        self.raw = raw
        for name in "qkv":
            if raw:
                setattr(self, name, nn.Parameter(torch.randn(8, 8) * 0.3))
                setattr(self, f"{name}_bias", nn.Parameter(torch.randn(8) * 0.3))
            else:
                setattr(self, name, nn.Linear(8, 8))
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            x @ getattr(self, name) + getattr(self, f"{name}_bias") if self.raw else getattr(self, name)(x)
            for name in "qkv"
        )
        y: Tensor = self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return y


@pytest.mark.parametrize("raw", [False, True])
def test_bare_products_and_sums_are_linear_layers(raw: bool) -> None:
    torch.manual_seed(0)
    found = verify(Raw(raw=raw), Raw(raw=not raw), torch.randn(2, 5, 8))
    assert found.verdict is Verdict.MATCH
    assert found.weights.unmapped_candidate == ()


class Scaled(nn.Module):
    """A layer behind a normalisation whose constants are saved with the weights."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.mean: Tensor
        self.register_buffer("mean", torch.full((8,), mean))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x - self.mean)
        return y


@pytest.mark.parametrize("weights", ["transfer", "calibrated"])
def test_other_constants_of_the_program_are_not_put_right_in_silence(weights: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    found = verify(Scaled(0.5), Scaled(0.1), x, weights=weights)
    assert found.verdict is Verdict.DIVERGED
    assert [culprit.baseline for culprit in found.culprits] == ["sub"]
    assert found.weights.kept == ("mean",)
    assert verify(Scaled(0.5), Scaled(0.5), x, weights=weights).verdict is Verdict.MATCH


class Growing(nn.Module):
    """Activations in one operator or four, on values that grow until sums of them nearly agree by chance."""

    def __init__(self, *, written: bool) -> None:
        super().__init__()
        self.written, self.layer = written, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        for _ in range(60):
            x = x * 1.5
            x = x * F.relu6(x + 3) / 6 if self.written else F.hardswish(x)
        return x


def test_tensors_that_agree_only_nearly_are_not_taken_for_the_same() -> None:
    torch.manual_seed(0)
    found = verify(Growing(written=False), Growing(written=True), torch.randn(3, 8))
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


class Silent(nn.Module):
    """Branches whose gains are all 0, with an activation in one operator, in four, or another one."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.gains = nn.ParameterList(nn.Parameter(torch.zeros(8)) for _ in range(3))

    def activation(self, x: Tensor, number: int) -> Tensor:
        if self.form == "one":
            return F.hardswish(x)
        return x.abs().sqrt() * 2 + 1 if self.form == "another" and number == 1 else x * F.relu6(x + 3) / 6

    def forward(self, x: Tensor) -> Tensor:
        for number, (layer, gain) in enumerate(zip(self.layers, self.gains, strict=True)):
            x = x + gain * self.activation(layer(x), number)
        return x


def test_what_a_gain_of_zero_hides_is_neither_a_match_nor_unseen_with_calibrated_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    hidden = verify(Silent("one"), Silent("another"), x)
    assert hidden.verdict is Verdict.INCONCLUSIVE
    assert "hardswish_1 has no partner" in hidden.reason
    assert verify(Silent("one"), Silent("several"), x).verdict is Verdict.MATCH
    assert verify(Silent("one"), Silent("several"), x, weights="calibrated").verdict is Verdict.MATCH
    assert verify(Silent("one"), Silent("another"), x, weights="calibrated").verdict is Verdict.DIVERGED


class Waves(nn.Module):
    """Amplifies what rounding leaves, unless every step starts from the baseline's tensor."""

    def __init__(self, steps: int = 5, gain: float = 30.0) -> None:
        super().__init__()
        self.steps, self.gain = steps, gain
        self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.steps):
            x = torch.sin(x * self.gain)
        return self.last(x)  # type: ignore[no-any-return]


class WavesOfTokens(Waves):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        shape = x.shape
        x = x.flatten(2).transpose(1, 2)
        for _ in range(self.steps):
            x = torch.cos(x / (1 / self.gain) - math.pi / 2)
        return self.last(x.transpose(1, 2).reshape(shape))  # type: ignore[no-any-return]


def test_a_layout_that_is_found_on_the_way_is_forced_from_there_on() -> None:
    torch.manual_seed(0)
    result = verify(Waves(), WavesOfTokens(), torch.randn(2, 8, 5, 5), cells=("cpu/float64",))
    assert result.verdict is Verdict.MATCH
    assert result.coverage.compared == result.coverage.baseline_sites
