"""Recurrent layers in one call beside cells by hand: weights find each other, and a fault is found inside."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.sweeps import swept
from tests.verifier.align.recurrent import (
    WIDE,
    WIDTH,
    Directions,
    Gru,
    Layers,
    Lstm,
    Network,
    Plain,
    words,
)
from tests.verifier.align.rewrites import excited
from verifier import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[], nn.Module]

LSTM, GRU, RNN = (partial(kind, batch_first=True) for kind in (nn.LSTM, nn.GRU, nn.RNN))


def one(layer: Make, **kwargs: Any) -> Make:
    return lambda: Network(layer(), **kwargs)


def last(found: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
    """The last state, which nn.LSTM gives one dimension more."""
    return found[1][0].reshape(-1, WIDTH)


def both_ways(kind: Any, **fault: str) -> Any:
    return Directions(kind(), kind(backward=True, **fault))


lstm = one(lambda: LSTM(WIDE, WIDTH))
gru = one(lambda: GRU(WIDE, WIDTH))

# What is written, the call it stands beside, and it.
WRITTEN: dict[str, tuple[Make, Make]] = {
    "two linear layers": (lstm, one(Lstm)),
    "one bias": (lstm, one(lambda: Lstm(biases=(False, True)))),
    "torch's own cell": (lstm, one(lambda: Lstm("cell"))),
    "gates apart": (lstm, one(lambda: Lstm("apart"))),
    "gates apart, in another order": (lstm, one(lambda: Lstm("apart", kept="fiog"))),
    "one layer for both": (lstm, one(lambda: Lstm("both"))),
    "one layer for both, the state first": (lstm, one(lambda: Lstm("swapped"))),
    "a layer a gate for both": (lstm, one(lambda: Lstm("joint", kept="oifg"))),
    "weights stored (in, out)": (lstm, one(lambda: Lstm("turned"))),
    "a dimension of gates": (lstm, one(lambda: Lstm("stacked"))),
    "no biases": (one(lambda: LSTM(WIDE, WIDTH, bias=False)), one(lambda: Lstm(biases=(False, False)))),
    "a projection": (
        one(lambda: LSTM(WIDE, WIDTH, proj_size=3), width=3),
        one(lambda: Lstm(small=3), width=3),
    ),
    "layers of one size": (
        one(lambda: LSTM(WIDTH, WIDTH, num_layers=3), wide=WIDTH),
        one(lambda: Layers(*(Lstm(wide=WIDTH) for _ in range(3))), wide=WIDTH),
    ),
    "both directions": (
        one(lambda: LSTM(WIDE, WIDTH, bidirectional=True), width=2 * WIDTH),
        one(lambda: both_ways(Lstm), width=2 * WIDTH),
    ),
    "both directions, the way back first": (
        one(lambda: LSTM(WIDE, WIDTH, bidirectional=True), width=2 * WIDTH),
        one(lambda: Directions(Lstm(), Lstm(backward=True), first="back"), width=2 * WIDTH),
    ),
    "both directions of two layers": (
        one(lambda: GRU(WIDE, WIDTH, num_layers=2, bidirectional=True), width=2 * WIDTH),
        one(lambda: Layers(both_ways(Gru), both_ways(partial(Gru, wide=2 * WIDTH))), width=2 * WIDTH),
    ),
    "the last state": (one(lambda: LSTM(WIDE, WIDTH), pick=last), one(Lstm, pick=last)),
    "a gated unit": (gru, one(Gru)),
    "a gated unit, torch's own cell": (gru, one(lambda: Gru("cell"))),
    "a gated unit, gates apart": (gru, one(lambda: Gru("apart", kept="znr"))),
    "no gates": (one(lambda: RNN(WIDE, WIDTH)), one(Plain)),
    "no gates, a ReLU": (
        one(lambda: RNN(WIDE, WIDTH, nonlinearity="relu")),
        one(lambda: Plain(torch.relu)),
    ),
}
# Where the one written by hand is trusted, or neither is one call.
OTHERWISE: dict[str, tuple[Make, Make]] = {
    "the call is the candidate": (one(Lstm), lstm),
    "the call has two biases, the baseline one": (one(lambda: Lstm(biases=(True, False))), lstm),
    "the call is the candidate, gates apart": (one(lambda: Lstm("apart", kept="fiog")), lstm),
    "the call is the candidate, one layer for both": (one(lambda: Lstm("both")), lstm),
    "torch's own cell and by hand": (one(lambda: Lstm("cell")), one(Lstm)),
    "gates apart and together, both by hand": (one(lambda: Lstm("apart")), one(Lstm)),
}
FAULTS: dict[str, tuple[Make, Make]] = {
    **{
        f"{fault}, {form}": (lstm, one(partial(Lstm, form, fault=fault)))
        for fault in ("gate order", "forget bias", "activation", "old state", "one step late")
        for form in ("two", "both", "turned", "stacked")
    },
    **{
        f"{fault}, gates apart": (lstm, one(partial(Lstm, "apart", kept="fiog", fault=fault)))
        for fault in ("forget bias", "activation", "old state")
    },
    **{
        f"{fault}, a gated unit": (gru, one(partial(Gru, fault=fault)))
        for fault in ("gate order", "kept and new", "reset of both", "a bias missing")
    },
    "no state": (one(lambda: RNN(WIDE, WIDTH)), one(lambda: Plain(fault="no state"))),
    "another activation": (one(lambda: RNN(WIDE, WIDTH)), one(lambda: Plain(torch.relu))),
    "not turned back": (
        one(lambda: LSTM(WIDE, WIDTH, bidirectional=True), width=2 * WIDTH),
        one(lambda: both_ways(Lstm, fault="not turned back"), width=2 * WIDTH),
    ),
    "sides exchanged": (
        one(lambda: LSTM(WIDE, WIDTH, bidirectional=True), width=2 * WIDTH),
        one(lambda: Directions(Lstm(), Lstm(backward=True), fault="sides"), width=2 * WIDTH),
    ),
    "in the second layer": (
        one(lambda: LSTM(WIDTH, WIDTH, num_layers=2), wide=WIDTH),
        one(lambda: Layers(Lstm(wide=WIDTH), Lstm(wide=WIDTH, fault="activation")), wide=WIDTH),
    ),
}
ALWAYS = {
    "two linear layers",
    "gates apart, in another order",
    "one layer for both",
    "both directions of two layers",
}


def compared(case: tuple[Make, Make]) -> Verification:
    return verify(excited(case[0](), 1), excited(case[1](), 2), words())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "name", swept([*WRITTEN, *OTHERWISE], {*ALWAYS, "gates apart and together, both by hand"})
)
def test_a_recurrent_layer_matches_however_it_is_written(name: str) -> None:
    result = compared((WRITTEN | OTHERWISE)[name])
    assert result.verdict == "match", result.reason
    assert (result.coverage.baseline_share, result.coverage.candidate_share) == (1, 1)
    assert not result.weights.unmapped_candidate


@pytest.mark.parametrize(
    "name",
    swept(
        FAULTS,
        {"gate order, two", "old state, gates apart", "a bias missing, a gated unit", "in the second layer"},
    ),
)
@pytest.mark.usefixtures("brief_searches")
def test_a_fault_in_a_recurrent_layer_is_found_there(name: str) -> None:
    result = compared(FAULTS[name])
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert (result.first_divergence.baseline or "").startswith("rnn")
    assert all((each.baseline or "").startswith("rnn") for each in result.culprits)


def made(name: str) -> dict[str, str | tuple[str, ...]]:
    return compared(WRITTEN[name]).weights.parameter_map


def test_one_bias_is_the_sum_of_two() -> None:
    found = made("one bias")
    assert found["rnn.gates.of_state.bias"] == "rnn.bias_ih_l0 + rnn.bias_hh_l0"
    assert found["rnn.gates.of_state.weight"] == "rnn.weight_hh_l0"


def test_gates_that_stand_apart_are_told_by_numbers() -> None:
    found = made("gates apart, in another order")
    for number, gate in enumerate("ifgo"):
        rows = f"[{number * WIDTH}:{(number + 1) * WIDTH}]"
        assert found[f"rnn.gates.inputs.{gate}.weight"] == f"rnn.weight_ih_l0{rows}"
        assert found[f"rnn.gates.states.{gate}.bias"] == f"rnn.bias_hh_l0{rows}"


def test_columns_for_input_and_state_stand_side_by_side_in_either_order() -> None:
    columns = "rnn.weight_ih_l0.T", "rnn.weight_hh_l0.T"
    assert made("one layer for both")["rnn.gates.of_both.weight"] == (*columns, ".T")
    assert made("one layer for both, the state first")["rnn.gates.of_both.weight"] == (*columns[::-1], ".T")


def test_where_the_baseline_has_one_bias_the_second_is_zeros() -> None:
    found = compared(OTHERWISE["the call has two biases, the baseline one"]).weights.parameter_map
    assert found["rnn.bias_ih_l0"] == "rnn.gates.of_input.bias"
    assert found["rnn.bias_hh_l0"] == "0 * rnn.gates.of_input.bias"


def test_gates_in_another_order_in_one_tensor_are_a_fault_and_a_map_says_that_they_are_meant() -> None:
    baseline, candidate = excited(lstm(), 1), excited(FAULTS["gate order, two"][1](), 2)
    assert verify(baseline, candidate, words()).verdict == "diverged"
    order = [f"[{k * WIDTH}:{(k + 1) * WIDTH}]" for k in (1, 0, 2, 3)]
    given = {
        f"rnn.gates.of_{part}.{leaf}": [f"rnn.{leaf}_{own}_l0{rows}" for rows in order]
        for part, own in (("input", "ih"), ("state", "hh"))
        for leaf in ("weight", "bias")
    }
    assert verify(baseline, candidate, words(), parameter_map=given).verdict == "match"


def test_a_gate_that_was_loaded_into_another_s_place_is_a_fault() -> None:
    baseline = excited(lstm(), 1)
    candidate = excited(one(lambda: Lstm("apart"))(), 2)
    rnn, gates = baseline.rnn, candidate.rnn.gates
    with torch.no_grad():
        candidate.embed.load_state_dict(baseline.embed.state_dict())
        candidate.head.load_state_dict(baseline.head.state_dict())
        for number, gate in enumerate("figo"):
            rows = slice(number * WIDTH, (number + 1) * WIDTH)
            for own, part in (("ih", gates.inputs), ("hh", gates.states)):
                part[gate].weight.copy_(getattr(rnn, f"weight_{own}_l0")[rows])
                part[gate].bias.copy_(getattr(rnn, f"bias_{own}_l0")[rows])
    result = verify(baseline, candidate, words())
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert (result.first_divergence.baseline or "").startswith("rnn")


def test_two_calls_of_other_names_give_each_weight_to_its_own() -> None:
    class Named(Network):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.other = LSTM(WIDE, WIDTH, num_layers=2, bidirectional=True)
            self.out = nn.Linear(2 * WIDTH, 5)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.out(self.other(self.embed(x))[0])
            return found

    baseline = one(lambda: LSTM(WIDE, WIDTH, num_layers=2, bidirectional=True), width=2 * WIDTH)
    result = compared((baseline, Named))
    assert result.verdict == "match", result.reason
    assert result.weights.parameter_map["other.weight_hh_l1"] == "rnn.weight_hh_l1"
