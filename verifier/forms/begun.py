"""What a step of another runtime's graph remembers from call to call, without keeping any tensor."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from verifier.forms.calls import Value


class Shipped:
    """Constants of a file by their place, and which tensors hold them still: copies of a program may hold others."""

    def __init__(self, arrays: Mapping[Any, np.ndarray]) -> None:
        self._arrays = arrays
        self._known: dict[Hashable, tuple[weakref.ref[Tensor], bool]] = {}

    def __getitem__(self, place: Hashable) -> np.ndarray:
        return self._arrays[place]

    def holds(self, place: Hashable, value: Value) -> bool:
        """Whether a value is what the file has there, to the last digit."""
        array = self._arrays.get(place)
        if array is None or not isinstance(value, Tensor):
            return array is not None and value is array
        known = self._known.get(place)
        if known is None or known[0]() is not value:
            wanted = torch.from_numpy(array)
            same = value.dtype == wanted.dtype and torch.equal(value.detach(), wanted)
            known = self._known[place] = weakref.ref(value), same
        return known[1]


class Begun(NamedTuple):
    """How a step's call was made of its inputs: a later call of the same kind is made of others in the same way."""

    settings: Any
    values: list[Value]  # without the tensors that the call itself has
    routes: list[tuple[torch.dtype, tuple[int, ...]]]  # for each tensor of the call, which inputs it is
    native: bool

    @classmethod
    def of(cls, settings: Any, given: Sequence[Value], tensors: Iterable[Tensor], *, native: bool) -> Begun:
        """That of a call with some settings and tensors."""
        left = {id(value): [k for k, each in enumerate(given) if each is value] for value in given}
        routes = [(t.dtype, tuple(_taken(left, t))) for t in tensors]
        called = {k for _, places in routes for k in places}
        return cls(settings, [None if k in called else v for k, v in enumerate(given)], routes, native)

    def with_tensors(self, settings: Any, tensors: Sequence[Tensor]) -> list[Value] | None:
        """The inputs with the tensors of another call; None where the kernel does not make such a call."""
        if not self.native or settings != self.settings:
            return None
        if [tensor.dtype for tensor in tensors] != [dtype for dtype, _ in self.routes]:
            return None
        values = [*self.values]
        for tensor, (_, places) in zip(tensors, self.routes, strict=True):
            for place in places:
                values[place] = tensor
        return values


def _taken(left: dict[int, list[int]], tensor: Tensor) -> Iterator[int]:
    """The next place of a tensor that stands in several, while there is another for the next time."""
    places = left.get(id(tensor), [])
    if places:
        yield places[0]
        left[id(tensor)] = places[1:]
