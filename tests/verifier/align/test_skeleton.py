"""Models built from other operators: their weights find each other, and a fault is found where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.networks import images
from tests.verifier.align.rewrites import (
    TOKENS,
    Attention,
    ChannelsLast,
    Decomposed,
    Flattened,
    Fused,
    Multihead,
    OneCall,
    Pointwise,
    Separate,
    Stored,
    Tied,
    TiedTensor,
    Turned,
    WholeWindow,
    excited,
    tokens,
)
from verifier import Verdict, Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Make = Callable[[], nn.Module]
    Assemblies = dict[str, str | tuple[str, ...]]


def indices() -> Tensor:
    return torch.randint(11, (2, TOKENS), generator=torch.Generator().manual_seed(0))


def compared(baseline: Make, candidate: Make, inputs: Tensor, plant: Any = None) -> Verification:
    """The verification of two models with weights of their own, with a fault planted in the candidate."""
    one, other = excited(baseline(), 1), excited(candidate(), 2)
    if plant is not None:
        plant(other)
    return verify(one, other, inputs)


def with_biases(**weights: str | tuple[str, ...]) -> Assemblies:
    """Assemblies for weights and, made in the same way, for the biases next to them."""

    def bias(text: str) -> str:
        return text.replace("_weight", "_bias").replace(".weight", ".bias")

    made: Assemblies = {}
    for name, assembly in weights.items():
        made[f"{name}.weight"] = assembly
        made[f"{name}.bias"] = bias(assembly) if isinstance(assembly, str) else tuple(map(bias, assembly))
    return made


CUT_FUSED = with_biases(
    ln="norm.weight",
    q="qkv.weight[0:8]",
    k="qkv.weight[8:16]",
    v="qkv.weight[16:24]",
    out="proj.weight",
    classify="head.weight",
)
CUT_MULTIHEAD = with_biases(
    ln="norm.weight",
    q="attn.in_proj_weight[0:8]",
    k="attn.in_proj_weight[8:16]",
    v="attn.in_proj_weight[16:24]",
    out="attn.out_proj.weight",
    classify="head.weight",
)
JOINED = with_biases(
    norm="ln.weight",
    qkv=("q.weight", "k.weight", "v.weight"),
    proj="out.weight",
    head="classify.weight",
)
IN_MULTIHEAD = {"qkv.weight": "attn.in_proj_weight", "qkv.bias": "attn.in_proj_bias"} | {
    f"proj.{leaf}": f"attn.out_proj.{leaf}" for leaf in ("weight", "bias")
}
SAME = with_biases(**{name: f"{name}.weight" for name in ("ln", "q", "k", "v", "out", "classify")})

MATCHES = [
    pytest.param(Fused, Separate, tokens, CUT_FUSED, id="one projection, three"),
    pytest.param(Fused, lambda: Separate("vkq"), tokens, CUT_FUSED, id="one projection, v, k and q"),
    pytest.param(Fused, OneCall, tokens, CUT_FUSED, id="one projection, three and one call"),
    pytest.param(Separate, Fused, tokens, JOINED, id="three projections, one"),
    pytest.param(lambda: Separate("kvq"), Fused, tokens, JOINED, id="k, v and q, one projection"),
    pytest.param(lambda: Separate("vqk"), Separate, tokens, SAME, id="v, q and k, then q, k and v"),
    pytest.param(OneCall, lambda: Separate("kqv"), tokens, SAME, id="one call, k, q and v"),
    pytest.param(Multihead, OneCall, tokens, CUT_MULTIHEAD, id="multi-head attention, three projections"),
    pytest.param(
        lambda: OneCall("vkq"),
        Multihead,
        tokens,
        {IN_MULTIHEAD.get(name, name): assembly for name, assembly in JOINED.items()},
        id="v, k and q, multi-head attention",
    ),
    pytest.param(
        Pointwise,
        ChannelsLast,
        images,
        {**with_biases(fc1="expand.weight", fc2="reduce.weight", conv="mix.weight"), "scale": "gamma"},
        id="1x1 convolutions and a layer scale, linear layers",
    ),
    pytest.param(
        ChannelsLast,
        Pointwise,
        images,
        {**with_biases(expand="fc1.weight", reduce="fc2.weight", mix="conv.weight"), "gamma": "scale"},
        id="linear layers and a layer scale, 1x1 convolutions",
    ),
    pytest.param(
        WholeWindow,
        Flattened,
        images,
        with_biases(conv="stem.weight", fc0="hidden.weight", fc="scores.weight"),
        id="a convolution over the whole map, a linear layer",
    ),
    pytest.param(
        Flattened,
        WholeWindow,
        images,
        with_biases(stem="conv.weight", hidden="fc0.weight", scores="fc.weight"),
        id="a linear layer, a convolution over the whole map",
    ),
    pytest.param(
        Stored,
        Turned,
        tokens,
        {
            **with_biases(ln="norm.weight"),
            "w1": "up.weight.T",
            "b1": "up.bias",
            "w2": "down.weight.T",
            "b2": "down.bias",
        },
        id="linear layers, addmm and matmul",
    ),
    pytest.param(
        Turned,
        Stored,
        tokens,
        {
            **with_biases(norm="ln.weight"),
            "up.weight": "w1.T",
            "up.bias": "b1",
            "down.weight": "w2.T",
            "down.bias": "b2",
        },
        id="addmm and matmul, linear layers",
    ),
    pytest.param(
        Tied,
        TiedTensor,
        indices,
        {
            **with_biases(ln="norm.weight"),
            "table": "embed.weight",
            "weight": "inner.weight.T",
            "bias": "inner.bias",
        },
        id="tied modules, one tensor used twice",
    ),
]


@pytest.mark.parametrize(("baseline", "candidate", "inputs", "assemblies"), MATCHES)
def test_a_rewrite_matches_by_exactly_these_recipes(
    baseline: Make, candidate: Make, inputs: Callable[[], Tensor], assemblies: Assemblies
) -> None:
    found = compared(baseline, candidate, inputs())
    assert found.weights.parameter_map == assemblies
    assert (found.weights.unmapped_baseline, found.weights.unmapped_candidate) == ((), ())
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


def test_tied_modules_are_made_of_one_tensor() -> None:
    found = compared(TiedTensor, Tied, indices())
    assert found.verdict is Verdict.MATCH
    assert found.weights.parameter_map["embed.weight"] == "table"
    assert found.weights.parameter_map.get("head.weight", "table") == "table"


@pytest.mark.parametrize(
    ("baseline", "candidate", "assemblies"),
    [
        pytest.param(
            Stored,
            Decomposed,
            {
                **with_biases(first="up.weight", second="down.weight"),
                "alpha": "norm.weight",
                "beta": "norm.bias",
            },
            id="a layer norm, its operators",
        ),
        pytest.param(
            Decomposed,
            Stored,
            {
                **with_biases(up="first.weight", down="second.weight"),
                "norm.weight": "alpha",
                "norm.bias": "beta",
            },
            id="operators, a layer norm",
        ),
        pytest.param(
            Fused,
            Multihead,
            {
                **with_biases(norm="norm.weight", head="head.weight"),
                **{name: text for text, name in IN_MULTIHEAD.items()},
            },
            id="attention written out, in one operator",
        ),
        pytest.param(Multihead, Separate, CUT_MULTIHEAD, id="attention in one operator, written out"),
    ],
)
def test_one_operator_and_many_hold_the_same_tensors(
    baseline: Make, candidate: Make, assemblies: Assemblies
) -> None:
    assert compared(baseline, candidate, tokens()).weights.parameter_map == assemblies


def scaled(model: Attention) -> None:
    model.scale = 1.5


def along_the_queries(model: Attention) -> None:
    model.axis = -2


def blamed(found: Verification) -> list[tuple[str | None, str | None]]:
    return [(culprit.baseline, culprit.candidate) for culprit in found.culprits]


@pytest.mark.parametrize(
    ("baseline", "candidate", "plant", "site"),
    [
        pytest.param(Fused, Separate, scaled, ("mul", "div"), id="scale, one projection, three"),
        pytest.param(
            *(Separate, Fused, scaled, ("div", "mul")),
            id="scale, three projections, one",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *(Fused, Separate, along_the_queries, ("softmax", "softmax")),
            id="axis, one and three",
            marks=pytest.mark.thorough,
        ),
        pytest.param(Separate, Fused, along_the_queries, ("softmax", "softmax"), id="axis, three and one"),
    ],
)
def test_a_fault_in_attention_is_blamed_on_its_operator(
    baseline: Make, candidate: Make, plant: Callable[[Attention], None], site: tuple[str, str]
) -> None:
    found = compared(baseline, candidate, tokens(), plant)
    assert found.verdict is Verdict.DIVERGED
    assert blamed(found) == [site]


@pytest.mark.parametrize("plant", [scaled, along_the_queries])
@pytest.mark.parametrize(
    ("baseline", "candidate", "region"),
    [
        # What one operator does cannot be told apart inside it; the region that stands for it can.
        pytest.param(OneCall, Separate, "scaled_dot_product_attention", id="one call, three projections"),
        pytest.param(OneCall, Fused, "scaled_dot_product_attention", id="one call, one projection"),
        pytest.param(
            Multihead,
            Separate,
            "attn.multi_head_attention_forward",
            id="multi-head attention, three projections",
        ),
        pytest.param(
            Multihead, Fused, "attn.multi_head_attention_forward", id="multi-head attention, one projection"
        ),
    ],
)
def test_a_fault_in_what_one_operator_does_is_blamed_on_that_region_alone(
    baseline: Make, candidate: Make, region: str, plant: Callable[[Attention], None]
) -> None:
    found = compared(baseline, candidate, tokens(), plant)
    assert found.verdict is Verdict.DIVERGED
    assert [culprit.baseline for culprit in found.culprits] == [region]
    assert found.culprits[0].cause is not None
    wanted = "literal-different" if plant is scaled else "softmax-dim"
    assert (found.culprits[0].cause.code, found.culprits[0].cause.confirmed) == (wanted, True)


def with_eps_times_three(name: str) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        norm: Any = model.get_submodule(name)
        norm.eps *= 3

    return plant


@pytest.mark.parametrize(
    ("baseline", "candidate"), [(OneCall, Separate), (Separate, OneCall), (lambda: OneCall("vkq"), Separate)]
)
def test_another_eps_above_rewritten_attention_is_blamed_on_the_norm_alone(
    baseline: Make, candidate: Make
) -> None:
    found = compared(baseline, candidate, tokens(), with_eps_times_three("ln"))
    assert found.verdict is Verdict.DIVERGED
    assert blamed(found) == [("ln", "ln")]
    assert found.culprits[0].cause is not None
    assert (found.culprits[0].cause.code, found.culprits[0].cause.confirmed) == ("layernorm-eps", True)


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [(Stored, Decomposed), (Decomposed, Stored), (Fused, Multihead), (Multihead, Separate)],
)
def test_one_operator_and_many_are_a_match(baseline: Make, candidate: Make) -> None:
    found = compared(baseline, candidate, tokens())
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


@pytest.mark.parametrize(
    ("baseline", "candidate", "site"),
    [
        pytest.param(Fused, Separate, ("norm", "ln"), id="one projection, three"),
        pytest.param(Separate, Fused, ("ln", "norm"), id="three projections, one"),
        pytest.param(Fused, OneCall, ("norm", "ln"), id="one projection, one call"),
        pytest.param(OneCall, Fused, ("ln", "norm"), id="one call, one projection"),
        pytest.param(Multihead, Separate, ("norm", "ln"), id="multi-head attention, three projections"),
        pytest.param(Stored, Turned, ("norm", "ln"), id="linear layers, addmm and matmul"),
        pytest.param(Tied, TiedTensor, ("norm", "ln"), id="tied modules, one tensor used twice"),
    ],
)
def test_another_eps_is_not_blamed_on_rewritten_operators_below(
    baseline: Make, candidate: Make, site: tuple[str, str]
) -> None:
    inputs = indices() if baseline is Tied else tokens()
    found = compared(baseline, candidate, inputs, with_eps_times_three(site[1]))
    assert found.verdict is Verdict.DIVERGED
    assert blamed(found) == [site]


@pytest.mark.parametrize(("baseline", "candidate"), [(Stored, Decomposed), (Decomposed, Stored)])
def test_another_eps_in_a_norm_written_out_is_blamed_once(baseline: Make, candidate: Make) -> None:
    def plant(model: Any) -> None:
        (model if candidate is Decomposed else model.norm).eps *= 3

    found = compared(baseline, candidate, tokens(), plant)
    assert found.verdict is Verdict.DIVERGED
    assert len(found.culprits) == 1
