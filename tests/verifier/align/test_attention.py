"""Attention in one call beside projections by hand, of one tensor or of several."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from torch import Tensor

from tests.sweeps import swept
from tests.verifier.align.attending import (
    CAUSAL,
    PADDED,
    WIDTH,
    Called,
    Decoder,
    DecoderByHand,
    Direct,
    Written,
    tokens,
)
from tests.verifier.align.rewrites import excited
from verifier import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Make = Callable[[], nn.Module]


def buffered(make: Callable[[], nn.Module]) -> nn.Module:
    """What is made, with its mask as a buffer, which sites then hold like a weight."""
    made = make()
    mask = made.mask
    del made.mask
    assert isinstance(mask, Tensor)
    made.register_buffer("mask", mask, persistent=False)
    return made


# What stands beside what, each with the arguments of both.
VARIANTS: dict[str, tuple[Make, Make]] = {
    "itself": (partial(Called, "self"), partial(Written, "self")),
    "itself, the batch second": (partial(Called, "self", first=False), partial(Written, "self")),
    "itself, one projection": (partial(Called, "self"), partial(Written, "self", stored="one")),
    "another tensor": (partial(Called, "cross"), partial(Written, "cross")),
    "another tensor, the batch second": (partial(Called, "cross", first=False), partial(Written, "cross")),
    "another tensor, its two projections in one": (
        partial(Called, "cross"),
        partial(Written, "cross", stored="two"),
    ),
    "keys that are not the values": (Called, Written),
    "keys that are not the values, one call": (Called, partial(Written, form="one call")),
    "keys that are not the values, einsum": (Called, partial(Written, form="einsum")),
    "keys that are not the values, convolutions": (Called, partial(Written, stored="convolutions")),
    "keys that are not the values, the batch second": (partial(Called, first=False), Written),
    "widths of their own": (partial(Called, kdim=6, vdim=8), partial(Written, widths=(6, 8))),
    "weights returned": (partial(Called, weights="mean"), partial(Written, weights="mean")),
    "weights of each head returned": (partial(Called, weights="each"), partial(Written, weights="each")),
    "no biases": (partial(Called, bias=False), partial(Written, bias=False)),
    "a key without a bias": (Called, partial(Written, key_bias=False)),
    "biases as tokens": (partial(Called, add_bias_kv=True), partial(Written, extra="biases")),
    "a token of zeros": (partial(Called, add_zero_attn=True), partial(Written, extra="zeros")),
    "one head": (partial(Called, heads=1), partial(Written, heads=1)),
    "a mask": (partial(Called, "self", mask=CAUSAL), partial(Written, "self", mask=CAUSAL)),
    "a mask that is a buffer": (
        partial(buffered, partial(Called, "self", mask=CAUSAL)),
        partial(buffered, partial(Written, "self", mask=CAUSAL)),
    ),
    "a mask, one call": (
        partial(Called, "self", mask=CAUSAL),
        partial(Written, "self", mask=CAUSAL, form="one call"),
    ),
    "padding": (partial(Called, padded=PADDED), partial(Written, padded=PADDED)),
    "the function itself": (Called, Direct),
    "by hand, the function itself": (Written, Direct),
    "the call is the candidate": (Written, Called),
    "the call is the candidate, of itself": (
        partial(Written, "self", form="one call"),
        partial(Called, "self"),
    ),
    "the call is the candidate, a key without a bias": (partial(Written, key_bias=False), Called),
    "a decoder": (Decoder, DecoderByHand),
    "a decoder, the calls in the candidate": (DecoderByHand, Decoder),
}
FAULTS: dict[str, tuple[Make, Make]] = {
    **{
        f"{fault}, {kind}": (partial(Called, kind), partial(Written, kind, fault=fault))
        for kind in ("self", "cross", "placed")
        for fault in ("no scale", "scale of the width", "heads", "axis", "a bias missing")
    },
    "places for values": (Called, partial(Written, fault="places for values")),
    "keys and values": (Called, partial(Written, fault="keys and values")),
    "mask": (partial(Called, "self", mask=CAUSAL), partial(Written, "self", mask=CAUSAL, fault="mask")),
    "a mask that is a buffer": (
        partial(buffered, partial(Called, "self", mask=CAUSAL)),
        partial(buffered, partial(Written, "self", fault="mask")),
    ),
    "padding": (partial(Called, padded=PADDED), partial(Written, padded=PADDED, fault="padding")),
    "widths of their own": (
        partial(Called, kdim=6, vdim=8),
        partial(Written, widths=(6, 8), fault="scale of the width"),
    ),
    "one projection": (partial(Called, "self"), partial(Written, "self", stored="one", fault="heads")),
}


def compared(case: tuple[Make, Make]) -> Verification:
    return verify(excited(case[0](), 1), excited(case[1](), 2), tokens())


@pytest.mark.parametrize(
    "name",
    swept(
        VARIANTS, {"keys that are not the values", "widths of their own", "a decoder", "the function itself"}
    ),
)
def test_an_attention_matches_however_it_is_written(name: str) -> None:
    result = compared(VARIANTS[name])
    assert result.verdict == "match", result.reason
    assert (result.coverage.baseline_share, result.coverage.candidate_share) == (1, 1)


@pytest.mark.parametrize("name", swept(FAULTS, {"keys and values", "heads, cross", "mask"}))
def test_a_fault_in_an_attention_is_found_there(name: str) -> None:
    result = compared(FAULTS[name])
    assert result.verdict == "diverged"
    assert [each.baseline for each in result.culprits] == ["inner.multi_head_attention_forward"]


def test_a_fault_in_one_of_several_attentions_is_found_in_that_one() -> None:
    result = compared((Decoder, partial(DecoderByHand, "scale")))
    name = "layers.layers.1.multihead_attn.multi_head_attention_forward"
    assert [each.baseline for each in result.culprits] == [name]


def test_rows_are_shared_out_by_what_they_are_for() -> None:
    found = compared(VARIANTS["keys that are not the values"]).weights.parameter_map
    for number, name in enumerate(("of_queries", "of_keys", "of_values")):
        rows = f"[{number * WIDTH}:{(number + 1) * WIDTH}]"
        assert found[f"{name}.weight"] == f"inner.in_proj_weight{rows}"
        assert found[f"{name}.bias"] == f"inner.in_proj_bias{rows}"


def test_a_bias_that_the_baseline_has_not_is_zeros() -> None:
    found = compared(VARIANTS["the call is the candidate, a key without a bias"]).weights.parameter_map
    assert found["inner.in_proj_bias"] == ("of_queries.bias", "0 * of_queries.bias", "of_values.bias")
