"""Every attempt with what must come of it: no match, or a match with the difference told at the terminal."""

from __future__ import annotations

import dataclasses
import enum
import random
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from reports import terminal
from tests.attempts.nets import BEHIND, CLASSES, Net, inputs
from verifier import VerifierError, verify
from verifier.environment import flags

if TYPE_CHECKING:
    from collections.abc import Callable

DIVERGED, MATCH, REFUSED = "diverged", "match", "refused"


@dataclass(frozen=True)
class Attempt:
    """Two models, the end they must come to, and words that must then be said."""

    baseline: Callable[[], nn.Module]
    candidate: Callable[[], nn.Module]
    end: str = DIVERGED
    says: str = ""


def wrapped(baseline: Callable[[Tensor], Any], candidate: Callable[[Tensor], Any], *rest: str) -> Attempt:
    """An attempt with what is returned."""
    return Attempt(lambda: Net(wrap=baseline), lambda: Net(wrap=candidate), *rest)


# A tensor is changed where no operator is seen to write it.
UNSEEN = {
    f"{name} at the {where}": Attempt(
        Net,
        partial(Net, change, where),
        says="changed after the last site that can be seen" if where == "end" else "",
    )
    for name, change in BEHIND.items()
    for where in ("input", "middle", "end")
}


# A call leaves something changed for the next.


class Counting(Net):
    """Counts its calls and computes with the count."""

    def forward(self, x: Tensor) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) * self.calls


class CountingInBuffer(Net):
    """Counts in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls.add_(1)
        return super().forward(x) * self.calls


class LazyScale(Net):
    """Makes its scale at the first call, and uses it from the second on."""

    scale: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        if self.scale is None:
            self.scale = y.abs().amax()
            return y
        return y / self.scale


class Caching(Net):
    """Hands out half of what it returned the last time."""

    last_output: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        y, self.last_output = (y if self.last_output is None else self.last_output / 2), y
        return y


class Once(Net):
    """Can be called once."""

    def forward(self, x: Tensor) -> Any:
        if getattr(self, "called", False):
            raise ValueError("once only")
        self.called = True
        return super().forward(x)


class Tired(Net):
    """Leaves out its ReLU from the second call on."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        self.relu = nn.Identity()  # type: ignore[assignment]
        return y


class Learning(Net):
    """Moves its weights a little in each call."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        self.first.weight.data.mul_(1.01)
        return y


class LearningUnseen(Net):
    """Moves its weights through NumPy."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        weight = self.first.weight.detach().numpy()
        weight *= 1.01
        return y


class SpoilingLate(Net):
    """Writes its weights through NumPy, in the second call only."""

    def forward(self, x: Tensor) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 2:
            weight = self.first.weight.detach().numpy()
            weight *= 1.5
        return super().forward(x)


class Switching(Net):
    """Is in another mode after a call."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        y = self.dropout(super().forward(x))
        self.dropout.train()
        return y


class HookedTwice(Net):
    """A hook of its own that grows with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.last.register_forward_hook(self._hook)

    def _hook(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        self.seen.append(1)
        return output * len(self.seen)


KEEPING = (
    Counting,
    CountingInBuffer,
    LazyScale,
    Caching,
    Once,
    Tired,
    Learning,
    LearningUnseen,
    SpoilingLate,
    Switching,
    HookedTwice,
)
STATE = {
    **{f"{each.__name__} against one that keeps nothing": Attempt(Net, each) for each in KEEPING},
    **{f"{each.__name__} on both sides": Attempt(each, each, MATCH, "second call") for each in KEEPING},
}


# It behaves otherwise while it is watched.


def watched() -> bool:
    """Whether a mode of torch functions is on."""
    return bool(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


class Modest(Net):
    """Is right while it is watched."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1 if watched() else 1.5)


class Shy(Net):
    """Fails when nothing watches it."""

    def forward(self, x: Tensor) -> Any:
        if not watched():
            raise ValueError("nobody is there")
        return super().forward(x)


class Hooked(Net):
    """Is right while there are hooks on its layers."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1 if self.first._forward_hooks else 1.5)


WATCHED = {
    "right while a mode is on": Attempt(Net, Modest, says="nothing watches"),
    "right while it has hooks": Attempt(Net, Hooked, says="nothing watches"),
    "fails when it is run bare": Attempt(Net, Shy, REFUSED, "nobody is there"),
}


# What is given is written.


class Overwriting(Net):
    """Writes what it was given, before or after it is used."""

    def __init__(self, write: Callable[[Tensor], object], *, late: bool) -> None:
        super().__init__()
        self.write, self.late = write, late

    def forward(self, x: Tensor) -> Any:
        if self.late:
            y = super().forward(x)
            self.write(x)
            return y
        self.write(x)
        return super().forward(x)


class WritingWeights(Net):
    """Writes one of its parameters, after it was used."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        self.write(self.first.weight.data)
        return y


GIVEN = {
    **{
        f"its input {name} {'after' if late else 'before'} use": Attempt(
            Net,
            partial(Overwriting, write, late=late),
            MATCH if late else DIVERGED,
            "overwrites the inputs" if late else "",
        )
        for name, write in {**BEHIND, "in place": lambda t: t.mul_(1.5), "zeroed": Tensor.zero_}.items()
        for late in (False, True)
    },
    **{
        f"its weights {name}": Attempt(Net, partial(WritingWeights, write))
        for name, write in {**BEHIND, "in place": lambda t: t.mul_(1.5)}.items()
    },
}


# Something else is returned that is no tensor, or not one like the baseline's.

Scores = namedtuple("Scores", ["logits", "label"])


class Typed(NamedTuple):
    """Scores as a tuple of names."""

    logits: Tensor
    label: str


@dataclass
class Output:
    """Scores as a dataclass."""

    logits: Tensor
    label: Any = None


class Colour(enum.Enum):
    """No number, no string."""

    RED = 1
    BLUE = 2


class Strange:
    """Nothing that can be compared."""


def nested(y: Tensor) -> Tensor:
    """Samples of several lengths in one tensor."""
    return torch.nested.nested_tensor([y[0], y[1, :3]], layout=torch.jagged)


RETURNED = {
    "another string": wrapped(lambda y: (y, "cat"), lambda y: (y, "dog"), DIVERGED, "'dog'"),
    "another string in a dict": wrapped(
        lambda y: {"y": y, "label": "cat"}, lambda y: {"y": y, "label": "dog"}, DIVERGED, "label"
    ),
    "another string in a dataclass": wrapped(
        lambda y: Output(y, "cat"), lambda y: Output(y, "dog"), DIVERGED, "label"
    ),
    "another string in a namedtuple": wrapped(
        lambda y: Scores(y, "a"), lambda y: Scores(y, "b"), DIVERGED, "label"
    ),
    "another string in a typed tuple": wrapped(
        lambda y: Typed(y, "a"), lambda y: Typed(y, "b"), DIVERGED, "label"
    ),
    "another string deep inside": wrapped(
        lambda y: {"a": [{"b": (y, "x")}]}, lambda y: {"a": [{"b": (y, "z")}]}, DIVERGED, "a.0.b.1"
    ),
    "other bytes": wrapped(lambda y: (y, b"cat"), lambda y: (y, b"dog")),
    "another dtype as a value": wrapped(lambda y: (y, torch.float32), lambda y: (y, torch.float64)),
    "another size as a value": wrapped(lambda y: (y, y.shape), lambda y: (y, y.T.shape)),
    "None for a string": wrapped(lambda y: (y, "cat"), lambda y: (y, None)),
    "a string too few": wrapped(lambda y: (y, "cat"), lambda y: (y,)),
    "a string too many": wrapped(lambda y: (y,), lambda y: (y, "cat")),
    "a None too many": wrapped(lambda y: (y,), lambda y: (y, None), MATCH, "None"),
    "a None too few": wrapped(lambda y: {"y": y, "cache": None}, lambda y: {"y": y}, MATCH, "None"),
    "None for a tensor": wrapped(lambda y: (y, y * 2), lambda y: (y, None)),
    "another number": wrapped(lambda y: (y, 3), lambda y: (y, 4)),
    "another number by a little": wrapped(lambda y: (y, 0.1), lambda y: (y, 0.1 + 1e-9)),
    "another number of a sum": wrapped(lambda y: (y, y.sum().item()), lambda y: (y, y.sum().item() * 1.001)),
    "another number alone": wrapped(lambda y: y.mean().item(), lambda y: y.mean().item() + 1e-3),
    "another truth": wrapped(lambda y: (y, True), lambda y: (y, False)),
    "another complex number": wrapped(lambda y: (y, 1 + 2j), lambda y: (y, 1 + 3j)),
    "another fraction": wrapped(lambda y: (y, Fraction(1, 3)), lambda y: (y, Fraction(1, 2))),
    "another infinity": wrapped(lambda y: (y, float("inf")), lambda y: (y, float("-inf"))),
    "NaN for a number": wrapped(lambda y: (y, 0.0), lambda y: (y, float("nan"))),
    "another list of numbers": wrapped(lambda y: y.argmax(1).tolist(), lambda y: y.argmin(1).tolist()),
    "another array": wrapped(lambda y: y.numpy(), lambda y: y.numpy() * 1.001),
    "another number of NumPy": wrapped(lambda y: (y, np.float32(3)), lambda y: (y, np.float32(4))),
    "another key": wrapped(lambda y: {"logits": y}, lambda y: {"scores": y}, DIVERGED, "--outputs by-order"),
    "another key beside the same": wrapped(
        lambda y: {"logits": y, "a": y * 2},
        lambda y: {"logits": y, "b": y * 2},
        DIVERGED,
        "--outputs by-order",
    ),
    "keys exchanged": wrapped(lambda y: {"a": y, "b": y * 2}, lambda y: {"b": y, "a": y * 2}),
    "another field of a dataclass": wrapped(
        Output,
        dataclasses.make_dataclass("Other", ["scores"]),
        DIVERGED,
        "by-order",
    ),
    "an ordered dict in another order": wrapped(
        lambda y: OrderedDict(a=y, b=y * 2), lambda y: OrderedDict(b=y * 2, a=y), MATCH, "match"
    ),
    "a tensor too many": wrapped(lambda y: y, lambda y: (y, y)),
    "a tensor too few": wrapped(lambda y: (y, y * 2), lambda y: y),
    "tensors exchanged": wrapped(lambda y: (y, y * 2), lambda y: (y * 2, y)),
    "a wider output": wrapped(lambda y: y, lambda y: y.double(), MATCH, "float64"),
    "a narrower output": wrapped(lambda y: y, lambda y: y.half()),
    "an output rounded and widened again": wrapped(lambda y: y, lambda y: y.bfloat16().to(y.dtype)),
    "integers for floats": wrapped(lambda y: y.round(), lambda y: y.round().long(), MATCH, "int64"),
    "classes as floats": wrapped(lambda y: y.argmax(1), lambda y: y.argmax(1).float(), MATCH, "float32"),
    "a sparse output that differs": wrapped(lambda y: y.to_sparse(), lambda y: (y * 1.01).to_sparse()),
    "a sparse output for a dense one": wrapped(lambda y: y, lambda y: y.to_sparse(), MATCH, "sparse"),
    "a compressed output that differs": wrapped(
        lambda y: y.to_sparse_csr(), lambda y: (y * 1.01).to_sparse_csr()
    ),
    "a nested output that differs": wrapped(nested, lambda y: nested(y * 1.01)),
    "a quantised output": wrapped(
        lambda y: torch.quantize_per_tensor(y.float(), 0.1, 0, torch.qint8),
        lambda y: torch.quantize_per_tensor(y.float() * 1.5, 0.1, 0, torch.qint8),
    ),
    "what cannot be compared": wrapped(
        lambda y: (y, Strange()), lambda y: (y, Strange()), MATCH, "not compared"
    ),
    "an enumeration": wrapped(lambda y: (y, Colour.RED), lambda y: (y, Colour.BLUE)),
    "a function": wrapped(lambda y: (y, len), lambda y: (y, abs), MATCH, "not compared"),
    "a generator": wrapped(
        lambda y: (y, (k for k in "ab")), lambda y: (y, (k for k in "ab")), MATCH, "not compared"
    ),
    "a set": wrapped(lambda y: (y, {"a", "b"}), lambda y: (y, {"a", "c"})),
    "nothing but strings": wrapped(lambda y: "cat", lambda y: "dog"),
    "nothing": wrapped(lambda y: None, lambda y: None, "inconclusive"),
    "a bare tensor for a dict": wrapped(lambda y: {"logits": y}, lambda y: y, MATCH, "match"),
    "NaN in an output": wrapped(lambda y: y, lambda y: y.masked_fill(y > y.amax() - 1e-9, float("nan"))),
    "an output of another shape": wrapped(lambda y: y, lambda y: y[:, : CLASSES - 1]),
    "an output of other samples": wrapped(lambda y: y, lambda y: y[:-1]),
    "its input for its output": wrapped(lambda y: y, lambda y: inputs()[:, :1].expand(4, CLASSES)[: len(y)]),
}

ATTEMPTS = {**UNSEEN, **STATE, **WATCHED, **GIVEN, **RETURNED}


def process() -> tuple[object, ...]:
    """What models could change of the process."""
    states = torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    return flags(), *states


@pytest.mark.filterwarnings("ignore:.*(nested|Sparse|quantize|Quantiz).*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantized tensor.*:DeprecationWarning")
@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_attempt_ends_in_a_match_that_is_not_told(name: str) -> None:
    attempt = ATTEMPTS[name]
    models, x = (attempt.baseline(), attempt.candidate()), inputs()
    kept = [copied_state(model) for model in models]
    before, said = process(), ""
    try:
        found = verify(*models, x)
        end, said = str(found.verdict), terminal.plain(found)
    except VerifierError as error:
        end, said = REFUSED, str(error)
    assert (end, attempt.says in said) == (attempt.end, True), said
    assert process() == before
    assert torch.equal(x, inputs())
    assert [copied_state(model) for model in models] == kept


def copied_state(model: nn.Module) -> list[object]:
    """Parameters, buffers, modes and numbers of hooks, as plain values."""
    return [
        {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    ]
