"""Ports of layers that go along a sequence: recurrent cells, scans, causal convolutions, shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH, Port, Stored

if TYPE_CHECKING:
    from collections.abc import Callable


def lstm(run: Callable[..., Any], both: bool = False) -> Stored:
    def make(m: Any) -> None:
        m.own = nn.LSTM(WIDTH, WIDTH // 2 if both else WIDTH, bidirectional=both, batch_first=True)

    return Stored(make, run)


def gru(run: Callable[..., Any]) -> Stored:
    def make(m: Any) -> None:
        m.own = nn.GRU(WIDTH, WIDTH, batch_first=True)

    return Stored(make, run)


def whole(m: Any, x: Tensor) -> Any:
    return m.own(x)[0]


def lstm_steps(layer: Any, x: Tensor, end: str, order: tuple[int, ...], forget: float = 0.0) -> Any:
    """A loop over cells; `order` says which chunks are input, forget, cell and output gate."""
    w_ih, w_hh, b_ih, b_hh = (
        getattr(layer, f"{kind}_l0{end}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = x.new_zeros(x.shape[0], w_hh.shape[1])
    made = []
    for step in x.unbind(1):
        gates = (F.linear(step, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
        into, kept, cell, out = (gates[k] for k in order)
        kept = kept + forget if forget else kept
        c = torch.sigmoid(kept) * c + torch.sigmoid(into) * torch.tanh(cell)
        h = torch.sigmoid(out) * torch.tanh(c)
        made.append(h)
    return torch.stack(made, 1)


def lstm_by_cells(order: tuple[int, ...] = (0, 1, 2, 3), forget: float = 0.0) -> Stored:
    return lstm(lambda m, x: lstm_steps(m.own, x, "", order, forget))


def lstm_both_ways(back: bool = True) -> Stored:
    def run(m: Any, x: Tensor) -> Any:
        forwards = lstm_steps(m.own, x, "", (0, 1, 2, 3))
        backwards = lstm_steps(m.own, x.flip(1), "_reverse", (0, 1, 2, 3))
        return torch.cat([forwards, backwards.flip(1) if back else backwards], -1)

    return lstm(run, both=True)


def gru_by_cells(after: bool = True, exchanged: bool = False) -> Stored:
    """`after`: the reset gate acts on what the matrix gives, as torch has it, not on what it takes."""

    def run(m: Any, x: Tensor) -> Any:
        w_ih, w_hh, b_ih, b_hh = m.own.all_weights[0]
        h = x.new_zeros(x.shape[0], WIDTH)
        made = []
        for step in x.unbind(1):
            i_reset, i_update, i_new = F.linear(step, w_ih, b_ih).chunk(3, -1)
            h_reset, h_update, h_new = F.linear(h, w_hh, b_hh).chunk(3, -1)
            reset, update = torch.sigmoid(i_reset + h_reset), torch.sigmoid(i_update + h_update)
            if after:
                new = torch.tanh(i_new + reset * h_new)
            else:
                new = torch.tanh(i_new + F.linear(reset * h, w_hh[2 * WIDTH :], b_hh[2 * WIDTH :]))
            h = (1 - update) * h + update * new if exchanged else (1 - update) * new + update * h
            made.append(h)
        return torch.stack(made, 1)

    return gru(run)


def summed(m: Any, x: Tensor) -> Any:
    return x + (torch.sigmoid(m.k(x)) * m.v(x)).cumsum(1)


def summed_by_matrix(last: int = 0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        seen = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril(last)
        return x + seen @ (torch.sigmoid(m.k(x)) * m.v(x))

    return run


def decayed(m: Any, x: Tensor) -> Any:
    rate, state, made = torch.sigmoid(m.bias), torch.zeros_like(x[:, 0]), []
    for step in m.v(x).unbind(1):
        state = rate * state + step
        made.append(state)
    return torch.stack(made, 1)


def decayed_by_powers(shift: int = 0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        i = torch.arange(x.shape[1], dtype=x.dtype)
        far = i[:, None] - i
        powers = torch.sigmoid(m.bias) ** (far.clamp(min=0) + shift)[..., None]
        return torch.einsum("ijc,bjc->bic", powers * (far >= 0)[..., None], m.v(x))

    return run


def shifted(m: Any, x: Tensor) -> Any:
    return m.k(x * m.weight + F.pad(x, (0, 0, 1, -1)) * (1 - m.weight))


def shifted_by_cat(m: Any, x: Tensor) -> Any:
    last = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return m.k(x * m.weight + last * (1 - m.weight))


def shifted_by_roll(m: Any, x: Tensor) -> Any:
    return m.k(x * m.weight + x.roll(1, 1) * (1 - m.weight))


def causal(m: Any, x: Tensor) -> Any:
    h = F.conv1d(x.mT, m.conv.weight[:, :1, 0], padding=2, groups=WIDTH)
    return h[..., : x.shape[1]].mT


def causal_by_pad(left: int = 2) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = F.pad(x.mT, (left, 2 - left)).unfold(-1, 3, 1)
        return (h * m.conv.weight[:, 0, 0][:, None]).sum(-1).mT

    return run


RECURRENT_PORTS: dict[str, Port] = {
    "order of an lstm's gates": Port(
        lstm(whole), lstm_by_cells(), lstm_by_cells((0, 2, 1, 3)), "order|exchang|chunk|gate|reads"
    ),
    "forget gate plus one": Port(
        lstm(whole), lstm_by_cells(), lstm_by_cells(forget=1.0), r"\badd\b|1\.0|offset|forget"
    ),
    "backwards half left reversed": Port(
        lstm(whole, both=True), lstm_both_ways(), lstm_both_ways(back=False), "flip|order|revers"
    ),
    "reset before the matrix": Port(gru(whole), gru_by_cells(), gru_by_cells(after=False), "mul|order|reset"),
    "update gate exchanged": Port(
        gru(whole), gru_by_cells(), gru_by_cells(exchanged=True), "order|exchang|reads|operand"
    ),
    "sum without the last": Port(summed, summed_by_matrix(), summed_by_matrix(-1), "diagonal"),
    "sum with the next": Port(summed, summed_by_matrix(), summed_by_matrix(1), "diagonal"),
    "decay one too far": Port(
        decayed, decayed_by_powers(), decayed_by_powers(1), r"\badd\b|offset|1\b|factor"
    ),
    "shift of tokens wraps": Port(shifted, shifted_by_cat, shifted_by_roll, "roll"),
    "convolution sees the next": Port(causal, causal_by_pad(), causal_by_pad(1), r"2, 0|\bpad"),
}
