"""Parts of a whole that are merged in one order, whoever has made which of them and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Mergeable(Protocol):
    """What merges with what comes right behind it."""

    def merge(self, later: Self, /) -> Self:
        """Both together."""


P = TypeVar("P", bound=Mergeable)


class Merging(Generic[P]):
    """Numbered parts, merged along the binary tree of their numbers.

    Floating-point sums depend on their order, which is fixed here: parts 0 and 1 are merged, 2 and 3, then these two.
    So the whole is the same bit for bit however the parts came, on however many ranks and after which interruption.
    Of parts that come in order about log2 of their number are held.

    Attributes:
        nodes: What is merged, by level and index: the parts from `index << level` to the next one's first.
    """

    def __init__(self, nodes: Mapping[tuple[int, int], P] | None = None) -> None:
        self.nodes: dict[tuple[int, int], P] = {}
        self._open: tuple[int, P] | None = None
        for (level, index), part in (nodes or {}).items():
            self.add(index, part, level)

    def add(self, number: int, part: P, level: int = 0) -> None:
        """Take in a part, or a node of a higher level."""
        while (sibling := self.nodes.pop((level, number ^ 1), None)) is not None:
            part = part.merge(sibling) if number % 2 == 0 else sibling.merge(part)
            level, number = level + 1, number >> 1
        self.nodes[level, number] = part

    def extend(self, number: int, piece: P) -> None:
        """Take in the next piece of a part that comes in several, one behind the other."""
        if self._open is not None and self._open[0] != number:
            self.close()
        self._open = number, piece if self._open is None else self._open[1].merge(piece)

    def close(self) -> None:
        """The part that came in pieces is whole."""
        if self._open is not None:
            self.add(*self._open)
            self._open = None

    @property
    def count(self) -> int:
        """How many parts were merged."""
        self.close()
        return sum(1 << level for level, _ in self.nodes)

    def absorb(self, other: Merging[P]) -> None:
        """Take in all that another has merged; what both have is taken from the wider node of the two."""
        every = {**self.nodes, **other.nodes}
        self.nodes = {}
        for level, index in sorted(every, reverse=True):
            if index << level not in self:
                self.add(index, every[level, index], level)

    def __contains__(self, number: object) -> bool:
        """Whether a part is among those that were merged."""
        return isinstance(number, int) and any(number >> level == index for level, index in self.nodes)

    def __iter__(self) -> Iterator[P]:
        """All nodes in the order of their parts."""
        return (self.nodes[each] for each in sorted(self.nodes, key=lambda node: node[1] << node[0]))

    def whole(self) -> P | None:
        """All of them; None of none."""
        self.close()
        found: P | None = None
        for part in self:
            found = part if found is None else found.merge(part)
        return found
