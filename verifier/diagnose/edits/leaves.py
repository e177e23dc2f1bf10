"""The numbers, flags and words that are written in a call, wherever they stand in its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.graph import KeptCall

Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Leaf:
    """A value in an argument: the argument's name, the way to it inside, and what it is."""

    name: str
    path: Path
    value: Any

    def put(self, call: KeptCall, value: Any) -> KeptCall:
        """The call with another value there."""
        return call.with_argument(self.name, _replaced(call.arguments[self.name], self.path, value))


@dataclass(frozen=True)
class Held:
    """One number that a call brings along as a tensor, by which of its operands that is."""

    name: str
    slot: int
    value: float
    path: Path = ()

    def put(self, call: KeptCall, value: Any) -> KeptCall:
        """The call with another number there."""
        operands = call.operands
        operands[self.slot] = torch.full_like(operands[self.slot], value)
        return call.with_operands(operands)


def held(call: KeptCall, sources: Sequence[int | None]) -> Iterator[Held]:
    """Every real number among the tensors that no step made and nothing hands in."""
    for slot, (tensor, source) in enumerate(zip(call.operands, sources, strict=True)):
        if source is None and tensor.numel() == 1 and tensor.is_floating_point():
            names = (name for name, value in call.arguments.items() if value is tensor)
            yield Held(next(names, f"arg{slot}"), slot, float(tensor))


def leaves(call: KeptCall) -> Iterator[Leaf]:
    """Every value in a call's arguments that is no tensor."""
    for name, value in call.arguments.items():
        for path, leaf in _walk(value, ()):
            yield Leaf(name, path, leaf)


_SLICE = ("start", "stop", "step")


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, list | tuple):
        for k, item in enumerate(value):
            yield from _walk(item, (*path, k))
    elif isinstance(value, slice):
        for part in _SLICE:
            yield from _walk(getattr(value, part), (*path, part))
    elif not isinstance(value, torch.Tensor):
        yield path, value


def _replaced(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    first, *rest = path
    if isinstance(value, slice):
        return slice(
            *(
                _replaced(getattr(value, part), tuple(rest), new) if part == first else getattr(value, part)
                for part in _SLICE
            )
        )
    items = [_replaced(item, tuple(rest), new) if k == first else item for k, item in enumerate(value)]
    return tuple(items) if isinstance(value, tuple) else items


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a real number, no flag."""
    return isinstance(value, int | float) and not isinstance(value, bool)
