"""One edit in all turns of a loop, and edits of what a program stores, masks, turns about and reduces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH, Port, Stored
from tests.mutants.ports.picture_regions import PICTURE
from tests.mutants.ports.recurrent_ports import gru, lstm, lstm_steps, whole
from tests.mutants.ports.regions import attention, layer, sdpa
from tests.mutants.ports.scoring import compared, marks
from tests.mutants.ports.vision_ports import patches, patches_by_linear, squeezed
from tests.sweeps import swept
from verifier.diagnose.edits.program import Program, Step
from verifier.diagnose.edits.repeats import Repeats
from verifier.graph import KeptCall

if TYPE_CHECKING:
    from collections.abc import Callable


def rnn(run: Callable[..., Any]) -> Stored:
    def make(m: Any) -> None:
        m.own = nn.RNN(WIDTH, WIDTH, batch_first=True)

    return Stored(make, run)


def rnn_by_cells(activation: Callable[[Tensor], Tensor]) -> Stored:
    def run(m: Any, x: Tensor) -> Any:
        w, u, b, c = m.own.all_weights[0]
        h, made = x.new_zeros(x.shape[0], WIDTH), []
        for step in x.unbind(1):
            h = activation(F.linear(step, w, b) + F.linear(h, u, c))
            made.append(h)
        return torch.stack(made, 1)

    return rnn(run)


def gru_by_cells(slope: float) -> Stored:
    def run(m: Any, x: Tensor) -> Any:
        w, u, b, c = m.own.all_weights[0]
        h, made = x.new_zeros(x.shape[0], WIDTH), []
        for step in x.unbind(1):
            (r, z, n), (s, y, k) = F.linear(step, w, b).chunk(3, -1), F.linear(h, u, c).chunk(3, -1)
            update = torch.sigmoid((z + y) * slope)
            h = (1 - update) * torch.tanh(n + torch.sigmoid(r + s) * k) + update * h
            made.append(h)
        return torch.stack(made, 1)

    return gru(run)


def lstm_without_tanh(m: Any, x: Tensor) -> Any:
    w, u, b, d = m.own.all_weights[0]
    h = c = x.new_zeros(x.shape[0], WIDTH)
    made = []
    for step in x.unbind(1):
        into, kept, cell, out = (F.linear(step, w, b) + F.linear(h, u, d)).chunk(4, -1)
        c = torch.sigmoid(kept) * c + torch.sigmoid(into) * torch.tanh(cell)
        h = torch.sigmoid(out) * c
        made.append(h)
    return torch.stack(made, 1)


def backwards(m: Any, x: Tensor) -> Any:
    return m.own(x.flip(1))[0].flip(1)


def forwards_by_cells(m: Any, x: Tensor) -> Any:
    return lstm_steps(m.own, x, "", (0, 1, 2, 3))


def _length(m: Any) -> None:
    m.length = nn.Parameter(torch.rand(WIDTH) + 0.5)


def normalised_weight(m: Any, x: Tensor) -> Any:
    w = m.q.weight
    return F.linear(x, m.length[:, None] * w / w.norm(dim=1, keepdim=True), m.q.bias)


def _removed(m: Any) -> None:
    _length(m)
    w = m.q.weight.double()
    m.q.weight.copy_((m.length.double()[:, None] * w / w.norm(dim=0, keepdim=True)).float())


def limited(m: Any, x: Tensor) -> Any:
    return F.hardtanh(m.q(x) * 2, -0.7, 0.7) * m.k(x)


def limited_by_hand(m: Any, x: Tensor) -> Any:
    least, most = x.new_tensor(-0.9), x.new_tensor(0.9)
    return torch.maximum(torch.minimum(m.q(x) * 2, most), least) * m.k(x)


def shared(m: Any, x: Tensor) -> Any:
    return (m.q(x) @ m.k(x).mT / 4).softmax(-1) @ x


def unshared(m: Any, x: Tensor) -> Any:
    return (m.q(x) @ m.k(x).mT / 4).exp() @ x


def uncentred(m: Any, x: Tensor) -> Any:
    return x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * m.weight + m.bias


def squeezed_by_sum(m: Any, x: Tensor) -> Any:
    return x * torch.sigmoid(m.k(torch.relu(m.q(x.sum((1, 2))))))[:, None, None]


def _port(baseline: Any, wrong: Any, words: str, inputs: tuple[int, ...] = (2, 6, WIDTH)) -> Port:
    return Port(baseline, baseline, wrong, words, inputs)


FAULTS = {
    "another activation in each turn": _port(
        rnn(whole), rnn_by_cells(torch.relu), "relu where tanh is right"
    ),
    "a factor in each turn": _port(gru(whole), gru_by_cells(1.5), r"1\.5 where 1\.0 is right"),
    "no activation in each turn": _port(lstm(whole), lstm(lstm_without_tanh), "tanh is missing"),
    "a sequence from the other end": _port(
        lstm(backwards), lstm(forwards_by_cells), "not reversed along axis 1, and what comes out"
    ),
    "three axes in another order": _port(
        patches, patches_by_linear((0, 3, 1, 4, 2, 5)), r"where \(0, 1, 3, 5, 2, 4\)", PICTURE
    ),
    "a mask that hides too little": _port(
        lambda m, x: sdpa(m, x, causal=True), attention(diagonal=1, fill=-2.0), "-2.0 where -inf is right"
    ),
    "a mean not taken off": _port(layer, uncentred, "mean, sub are missing"),
    "shares that do not sum to one": _port(shared, unshared, "sum, div are missing behind exp"),
    "one number at two places": _port(limited, limited_by_hand, "0.9, the baseline's 0.7"),
    "a sum for a mean": _port(squeezed, squeezed_by_sum, "sum where mean is right", PICTURE),
    "a weight norm over columns": _port(
        Stored(_length, normalised_weight), Stored(_removed, lambda m, x: m.q(x)), "stored weight of linear"
    ),
}
ALWAYS = {"another activation in each turn", "one number at two places", "a weight norm over columns"}


@pytest.mark.parametrize("name", swept(sorted(FAULTS), ALWAYS))
def test_a_fault_is_one_culprit_and_its_cause_an_edit(name: str) -> None:
    found = compared(FAULTS[name], FAULTS[name].wrong)
    assert marks(FAULTS[name], found) == (True, True, True), [row.cause for row in found.culprits]


def test_an_edit_of_a_loop_says_in_how_many_turns_it_is_made() -> None:
    port = FAULTS["another activation in each turn"]
    (culprit,) = compared(port, port.wrong).culprits
    assert culprit.cause is not None
    assert "it is made in all 6 turns of a loop" in culprit.cause.evidence


def test_what_no_single_edit_of_a_loop_mends_is_located() -> None:
    port = _port(rnn(whole), rnn_by_cells(lambda h: torch.sin(h) * torch.cos(h + 1)), "")
    (culprit,) = compared(port, port.wrong).culprits
    assert culprit.cause is not None
    assert culprit.cause.status == "located"


def _step(op: Callable[..., Tensor], first: int, *sources: int | None) -> Step:
    call = KeptCall.of(op, [torch.ones(3)] * len(sources), {}, set())
    return Step(op.__name__, op.__name__, call, sources, first)


def _loop(turns: int) -> Program:
    """The exponential of a sum and its root, again and again."""
    steps, state = [], -1
    for turn in range(turns):
        first = 3 * turn
        steps += [_step(torch.add, first, state, -2), _step(torch.exp, first + 1, first)]
        steps.append(_step(torch.sqrt, first + 2, first + 1))
        state = first + 2
    steps.append(_step(torch.neg, 3 * turns, state))
    return Program(tuple(steps), {-1: torch.zeros(3), -2: torch.full((3,), 0.1)}, 3 * turns)


def test_an_edit_of_one_turn_is_made_in_all() -> None:
    program = _loop(5)
    repeats = Repeats.of(program, program.run())
    assert repeats is not None
    turn = repeats.loops[0].turn
    exp = next(at for at, step in enumerate(program.steps) if step.op == "exp" and step in turn)

    everywhere = repeats.everywhere(program.bypassed(exp, 0))

    assert everywhere is not None
    state = torch.zeros(3)
    for _ in range(5):
        state = (state + 0.1).sqrt()
    assert everywhere.result_of(everywhere.run()).allclose(-state)


def test_a_step_more_in_one_turn_is_one_more_in_all() -> None:
    program = _loop(4)
    repeats = Repeats.of(program, program.run())
    assert repeats is not None
    sqrt = next(step for step in repeats.loops[0].turn if step.op == "sqrt")
    place = next(p for p in program.places() if p is not None and program.reader_at(p) is sqrt)
    sin = _step(torch.sin, -100, 0)

    everywhere = repeats.everywhere(program.inserted(sin, 0, place))

    assert everywhere is not None
    state = torch.zeros(3)
    for _ in range(4):
        state = (state + 0.1).exp().sin().sqrt()
    assert everywhere.result_of(everywhere.run()).allclose(-state)


def test_operators_that_do_not_come_again_are_no_loop() -> None:
    program = _loop(1)
    assert Repeats.of(program, program.run()) is None


def test_a_call_made_on_other_tensors_leaves_them_as_they_are() -> None:
    x, mean, var = torch.randn(8, 3), torch.zeros(3), torch.ones(3)
    norm = KeptCall.of(F.batch_norm, (x, mean, var), {"training": True}, set())
    doubled = KeptCall.of(Tensor.mul_, (x, 2.0), {}, set())
    given = [torch.randn(8, 3), torch.zeros(3), torch.ones(3)]
    before = [each.clone() for each in given]

    made = [*norm.made_on(given), *doubled.made_on(given[:1])]

    assert all(one.equal(other) for one, other in zip(given, before, strict=True))
    assert made[0].equal(norm.with_operands(given).run()[0][0])
    assert made[1].equal(2 * given[0])
