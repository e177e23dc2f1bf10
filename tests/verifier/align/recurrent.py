"""Recurrent layers by hand, in the spellings that ports use, with faults that ports have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE, WIDTH, STEPS, WORDS = 6, 8, 4, 11


def words() -> Tensor:
    """Indices of words, (2, STEPS)."""
    return torch.randint(WORDS, (2, STEPS), generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """An embedding, a recurrent layer, and a head for what `pick` takes of what that returns."""

    def __init__(self, rnn: nn.Module, width: int = WIDTH, wide: int = WIDE, pick: Any = None) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(WORDS, wide), rnn, nn.Linear(width, 5)
        self.pick: Callable[[Any], Tensor] = pick or (lambda found: found[0])

    def forward(self, x: Tensor) -> Tensor:
        """Indices, (N, T), to (N, T, 5)."""
        found: Tensor = self.head(self.pick(self.rnn(self.embed(x))))
        return found


class Gates(nn.Module):
    """What is made of an input and a state before any activation, for the gates `order` names.

    `form` is how the weights are kept: `two` linear layers, one of `both` or of both, the state first (`swapped`),
    two a gate (`apart`) or one (`joint`), matrices (in, out) and one bias (`turned`), or with a dimension of gates
    (`stacked`).
    """

    def __init__(
        self,
        wide: int,
        width: int,
        form: str,
        order: str,
        biases: Sequence[bool] = (True, True),
        kept: str = "",
    ) -> None:
        super().__init__()
        self.form, self.order, self.kept = form, order, kept or order
        count = len(order)
        if form == "two":
            self.of_input = nn.Linear(wide, count * width, bias=biases[0])
            self.of_state = nn.Linear(width, count * width, bias=biases[1])
        elif form in {"both", "swapped"}:
            self.of_both = nn.Linear(wide + width, count * width)
        elif form == "apart":
            self.inputs = nn.ModuleDict({gate: nn.Linear(wide, width) for gate in self.kept})
            self.states = nn.ModuleDict({gate: nn.Linear(width, width) for gate in self.kept})
        elif form == "joint":
            self.gates = nn.ModuleDict({gate: nn.Linear(wide + width, width) for gate in self.kept})
        else:
            stacked = form == "stacked"
            shapes = [(count, width, wide), (count, width, width), (count, width)]
            shapes = shapes if stacked else [(wide, count * width), (width, count * width), (count * width,)]
            self.kernel, self.recurrent, self.bias = (nn.Parameter(torch.zeros(shape)) for shape in shapes)

    def forward(self, x: Tensor, h: Tensor) -> Sequence[tuple[Tensor, Tensor | float]]:
        """For each gate what comes of (N, wide) and of (N, width), which are to be added; each (N, width)."""
        count = len(self.order)
        if self.form == "two":
            parts = self.of_input(x).chunk(count, -1), self.of_state(h).chunk(count, -1)
            return list(zip(*parts, strict=True))
        if self.form == "apart":
            found = {gate: (self.inputs[gate](x), self.states[gate](h)) for gate in self.kept}
            return [found[gate] for gate in self.order]
        both = torch.cat([h, x] if self.form == "swapped" else [x, h], -1)
        if self.form == "joint":
            each = {gate: self.gates[gate](both) for gate in self.kept}
            return [(each[gate], 0.0) for gate in self.order]
        if self.form == "turned":
            whole = x @ self.kernel + h @ self.recurrent + self.bias
        elif self.form == "stacked":
            whole = torch.einsum("ni,gki->ngk", x, self.kernel) + torch.einsum(
                "nj,gkj->ngk", h, self.recurrent
            )
            return [(gate, 0.0) for gate in (whole + self.bias).unbind(1)]
        else:
            whole = self.of_both(both)
        return [(gate, 0.0) for gate in whole.chunk(count, -1)]


class Lstm(nn.Module):
    """A long short-term memory step by step; `fault` names what is wrong with it."""

    def __init__(
        self,
        form: str = "two",
        wide: int = WIDE,
        *,
        fault: str = "",
        kept: str = "",
        biases: Sequence[bool] = (True, True),
        backward: bool = False,
        small: int = 0,
    ) -> None:
        super().__init__()
        self.fault, self.backward, self.width = fault, backward, small or WIDTH
        self.cell = nn.LSTMCell(wide, WIDTH) if form == "cell" else None
        self.gates: nn.Module | None = None if self.cell else Gates(wide, WIDTH, form, "ifgo", biases, kept)
        if small:
            self.gates = _Smaller(wide, small)
            self.project = nn.Linear(WIDTH, small, bias=False)
        self.small = small

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, T, wide) to (N, T, WIDTH), with the last states, (N, WIDTH) each."""
        x = x.flip(1) if self.backward else x
        h, c = x.new_zeros(len(x), self.width), x.new_zeros(len(x), WIDTH)
        found = []
        for t in range(x.shape[1]):
            before = h
            if self.cell is not None:
                h, c = self.cell(x[:, t], (h, c))
            else:
                assert self.gates is not None
                i, f, g, o = (one + other for one, other in self.gates(x[:, t], h))
                if self.fault == "gate order":
                    i, f = f, i
                if self.fault == "forget bias":
                    f = f + 1
                inner = torch.sigmoid(g) if self.fault == "activation" else torch.tanh(g)
                new = torch.sigmoid(f) * c + torch.sigmoid(i) * inner
                h = torch.sigmoid(o) * (c if self.fault == "old state" else new).tanh()
                c = new
                h = self.project(h) if self.small else h
            found.append(before if self.fault == "one step late" else h)
        out = torch.stack(found, 1)
        return (out.flip(1) if self.backward and self.fault != "not turned back" else out), (h, c)


class _Smaller(nn.Module):
    """Gates of a state that is smaller than what the gates make."""

    def __init__(self, wide: int, small: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(wide, 4 * WIDTH), nn.Linear(small, 4 * WIDTH)

    def forward(self, x: Tensor, h: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """As `Gates`."""
        return list(zip(self.of_input(x).chunk(4, -1), self.of_state(h).chunk(4, -1), strict=True))


class Gru(nn.Module):
    """A gated recurrent unit step by step; `fault` names what is wrong with it."""

    def __init__(
        self, form: str = "two", wide: int = WIDE, *, fault: str = "", kept: str = "", backward: bool = False
    ) -> None:
        super().__init__()
        self.fault, self.backward = fault, backward
        self.cell = nn.GRUCell(wide, WIDTH) if form == "cell" else None
        biases = True, fault != "a bias missing"
        self.gates = None if self.cell else Gates(wide, WIDTH, form, "rzn", biases, kept)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, wide) to (N, T, WIDTH), with the last state, (N, WIDTH)."""
        x = x.flip(1) if self.backward else x
        h = x.new_zeros(len(x), WIDTH)
        found = []
        for t in range(x.shape[1]):
            if self.cell is not None:
                h = self.cell(x[:, t], h)
            else:
                assert self.gates is not None
                r, z, (new, again) = self.gates(x[:, t], h)
                reset, keep = torch.sigmoid(r[0] + r[1]), torch.sigmoid(z[0] + z[1])
                if self.fault == "gate order":
                    reset, keep = keep, reset
                inner = reset * (new + again) if self.fault == "reset of both" else new + reset * again
                n = torch.tanh(inner)
                h = keep * n + (1 - keep) * h if self.fault == "kept and new" else (1 - keep) * n + keep * h
            found.append(h)
        out = torch.stack(found, 1)
        return (out.flip(1) if self.backward else out), h


class Plain(nn.Module):
    """A recurrent layer without gates."""

    def __init__(self, act: Callable[[Tensor], Tensor] = torch.tanh, *, fault: str = "") -> None:
        super().__init__()
        self.act, self.fault = act, fault
        self.of_input, self.of_state = nn.Linear(WIDE, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, WIDE) to (N, T, WIDTH), with the last state, (N, WIDTH)."""
        h, found, before = x.new_zeros(len(x), WIDTH), [], self.of_input(x)  # for all steps at once
        for t in range(x.shape[1]):
            h = self.act(before[:, t] + self.of_state(h if self.fault != "no state" else h * 0))
            found.append(h)
        return torch.stack(found, 1), h


class Layers(nn.Module):
    """Recurrent layers one after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, E) to (N, T, F)."""
        for layer in self.layers:
            x = layer(x)[0]
        return x, None


class Directions(nn.Module):
    """A layer forth and one back, side by side; either may run first."""

    def __init__(self, forth: nn.Module, back: nn.Module, *, first: str = "forth", fault: str = "") -> None:
        super().__init__()
        self.forth, self.back, self.first, self.fault = forth, back, first, fault

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, E) to (N, T, 2 F)."""
        if self.first == "back":
            back = self.back(x)[0]
            forth = self.forth(x)[0]
        else:
            forth, back = self.forth(x)[0], self.back(x)[0]
        return torch.cat([back, forth] if self.fault == "sides" else [forth, back], -1), None
