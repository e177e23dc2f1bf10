"""Candidates that must match: what one is, and the settings under which nothing may be flagged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import random


@dataclass
class Variant:
    """A candidate that must match, the input it gets, and how it is verified.

    `options` go to `verify`; `around` is entered for it.
    """

    candidate: Any
    inputs: Tensor
    rng: random.Random
    options: dict[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = nullcontext


Rewrite = Callable[[Variant], None]
BENIGN: dict[str, Rewrite] = {}


def benign(name: str) -> Callable[[Rewrite], Rewrite]:
    """Register a variant."""

    def register(rewrite: Rewrite) -> Rewrite:
        if name in BENIGN:
            raise ValueError(f"there are two variants called {name}")
        BENIGN[name] = rewrite
        return rewrite

    return register


def variant(baseline: nn.Module, inputs: Tensor, names: list[str], rng: random.Random) -> Variant:
    """A copy of `baseline` with these rewrites applied one after the other."""
    made = Variant(copy.deepcopy(baseline), inputs, rng)
    for name in names:
        with torch.no_grad():
            BENIGN[name](made)
    return made


def rewrite(made: Variant, kind: type[nn.Module], forward: Callable[..., Tensor]) -> None:
    """Give all modules of exactly this class, or a random part of them, another forward."""
    found: list[Any] = [module for module in made.candidate.modules() if type(module) is kind]
    part = found if made.rng.random() < 0.5 else [module for module in found if made.rng.random() < 0.5]
    for module in part or found[:1]:
        module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


# --- settings


@benign("unchanged")
def _(made: Variant) -> None:
    pass


@benign("channels-last-model")
def _(made: Variant) -> None:
    made.candidate = made.candidate.to(memory_format=torch.channels_last)


@benign("channels-last-input")
def _(made: Variant) -> None:
    made.inputs = made.inputs.contiguous(memory_format=torch.channels_last)


@benign("input-not-contiguous")
def _(made: Variant) -> None:
    made.inputs = made.inputs.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)


@benign("batch-split")
def _(made: Variant) -> None:
    if not made.candidate.training:  # there a batch is part of the function
        made.options["batch_size"] = 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@benign("two-threads")
def _(made: Variant) -> None:
    made.around = lambda: _threads(2)


@contextmanager
def _no_mkldnn() -> Iterator[None]:
    before: Any = torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before[0])  # type: ignore[no-untyped-call]


@benign("no-mkldnn")
def _(made: Variant) -> None:
    made.around = _no_mkldnn


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@benign("deterministic-algorithms")
def _(made: Variant) -> None:
    made.around = _deterministic


@benign("transferred-weights")
def _(made: Variant) -> None:
    made.options["weights"] = "transfer"


@benign("calibrated-weights")
def _(made: Variant) -> None:
    made.options["weights"] = "calibrated"


@benign("every-cell")
def _(made: Variant) -> None:
    halves = [f"cpu/{dtype}{cast}" for dtype in ("bfloat16", "float16") for cast in ("", "/autocast")]
    made.options["cells"] = (
        "cpu/float32",
        "cpu/float32/channels_last",
        "cpu/bfloat16/channels_last",
        *halves,
    )
