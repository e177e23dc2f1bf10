"""Sharing out the weights of projections that stand side by side in one model and are fused in the other."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from verifier.align.assembly import Assembly, Piece
from verifier.align.signatures import canonical_order
from verifier.graph.operators import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from verifier.align.uses import Held, Use
    from verifier.graph import Graph


def assembly_of(tensors: Sequence[Held], *, turned: bool) -> Assembly:
    """Whole tensors of the baseline, one below the other, for one of the candidate that may be stored `turned`."""
    return Assembly.built((Piece(each.name, transposed=each.turned) for each in tensors), turned=turned)


def shared_out(
    baseline: Use,
    candidate: Use,
    roles: tuple[Roles, Roles],
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] = ({}, {}),
) -> tuple[list[tuple[int, int]], list[dict[str, Assembly]]]:
    """Pairs of sites in two bundles of one size, and the possible assemblies, the likeliest first.

    Which is which their `values` tell, where both hold the same tensors, and what reads them where they do not.
    """
    b = sorted(baseline.members, key=lambda tensor: roles[0].rank(tensor.site))
    c = sorted(candidate.members, key=lambda tensor: roles[1].rank(tensor.site))
    if sorted(map(_rows, b)) != sorted(map(_rows, c)):
        heads = max(
            side.heads(tensor.site) for side, tensors in zip(roles, (b, c), strict=True) for tensor in tensors
        )
        return [], list(cuts(b, c, heads))
    if [*map(_rows, b)] != [*map(_rows, c)]:  # sizes say which is which, roles among those of one size
        b, c = sorted(b, key=_rows), sorted(c, key=_rows)
    c = _by_value(b, c, values) or c
    assemblies = [
        {two.name: assembly_of((b[k],), turned=two.turned) for k, two in zip(order, c, strict=True)}
        for order in _orders(len(b))
        if all(_rows(b[k]) == _rows(two) for k, two in zip(order, c, strict=True))
    ]
    return [(one.site, two.site) for one, two in zip(b, c, strict=True)], assemblies


def _by_value(
    b: Sequence[Held], c: Sequence[Held], values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]]
) -> list[Held]:
    """The candidate's tensors in the order of the baseline's: beside one that holds the same, the others as they are.

    Nothing where none holds what another does, or where the others differ in size.
    """
    own = {values[1].get(each.name): each for each in c}
    if None in own or len(own) < len(c):
        return []
    same = [own.get(values[0].get(each.name)) for each in b]
    kept = {each for each in same if each is not None}
    if not kept or len(kept) < len([each for each in same if each is not None]):
        return []
    others = iter(each for each in c if each not in kept)
    found = [each or next(others) for each in same]
    return found if [*map(_rows, b)] == [*map(_rows, found)] else []


class _Rows(NamedTuple):
    """Some rows of a tensor, as (out, in)."""

    tensor: Held
    start: int
    stop: int


def _cut(b: Sequence[_Rows], c: Sequence[_Rows]) -> dict[str, Assembly]:
    """Assemblies for the candidate's tensors, where `b` and `c` list the same rows one after the other."""
    ends: list[tuple[_Rows, int]] = []
    position = 0
    for rows in b:
        ends.append((rows, position))
        position += rows.stop - rows.start
    pieces: dict[Held, list[tuple[int, Piece]]] = {}
    position = 0
    for wanted in c:
        stop = position + wanted.stop - wanted.start
        for held, first in ends:
            low, high = max(first, position), min(first + held.stop - held.start, stop)
            if low < high:
                start, end = held.start + low - first, held.start + high - first
                piece = Piece(held.tensor.name, transposed=held.tensor.turned)
                if (start, end) != (0, _rows(held.tensor)):
                    piece = piece._replace(start=start, stop=end)
                pieces.setdefault(wanted.tensor, []).append((wanted.start + low - position, piece))
        position = stop
    return {
        tensor.name: Assembly.built((piece for _, piece in sorted(found)), turned=tensor.turned)
        for tensor, found in pieces.items()
    }


def cuts(b: Sequence[Held], c: Sequence[Held], heads: int) -> Iterator[dict[str, Assembly]]:
    """Ways to share out the rows of one side among the tensors of the other: block after block, or head by head."""
    finer, coarser = (b, c) if len(b) >= len(c) else (c, b)
    rest = [_Rows(each, 0, _rows(each)) for each in coarser]
    for parts in (1, heads) if heads > 1 and all(_rows(each) % heads == 0 for each in finer) else (1,):
        for order in _orders(len(finer)):
            split = [
                _Rows(finer[k], part * _rows(finer[k]) // parts, (part + 1) * _rows(finer[k]) // parts)
                for part in range(parts)
                for k in order
            ]
            yield _cut(split, rest) if finer is b else _cut(rest, split)


def _rows(tensor: Held) -> int:
    return tensor.shape[-1] if tensor.turned else tensor.shape[0]


def _orders(count: int) -> list[tuple[int, ...]]:
    """The orders worth a trial, as they are first: all of a few, otherwise that and its reverse."""
    if count <= _FEW:
        return list(itertools.permutations(range(count)))
    return [tuple(range(count)), tuple(reversed(range(count)))]


_FEW = 4  # query, key and value; the gates of a recurrent cell


class Roles:
    """Which of several projections of one tensor is the query, the key, the value: told by what reads them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._order = {index: k for k, index in enumerate(canonical_order(graph))}

    def rank(self, site: int) -> tuple[int, int]:
        """0 for a query, 1 for a key, 2 for a value, 3 elsewhere; then the place in the canonical order."""
        seen = {site}
        stack = [site]
        while stack:
            here = stack.pop()
            for reader in self._graph.consumers[here]:
                found = self._graph.sites[reader]
                if found.op == "scaled_dot_product_attention" and here in found.operands:
                    return found.operands.index(here), self._order[site]
                if found.op in _PRODUCTS_OF_TWO and len(found.operands) > 1 and not found.tensors:
                    operand = found.operands.index(here) if here in found.operands else 1
                    return (operand if self._meets_softmax(reader) else 2), self._order[site]
                if reader not in seen and not found.tensors:
                    seen.add(reader)
                    stack.append(reader)
        return 3, self._order[site]

    def places(self, site: int) -> set[tuple[int, int]]:
        """The attentions that a projection leads to: where values are weighed, and its part as in `rank`."""
        found: set[tuple[int, int]] = set()
        seen, stack = {site}, [site]
        while stack:
            here = stack.pop()
            for reader in self._graph.consumers[here]:
                site_of = self._graph.sites[reader]
                weighed = site_of.op.startswith(PRODUCTS) and site_of.tensors
                if site_of.op == "scaled_dot_product_attention" and here in site_of.operands:
                    found.add((reader, site_of.operands.index(here)))
                elif site_of.op in _PRODUCTS_OF_TWO and here in site_of.operands[:2] and not weighed:
                    if not self._meets_softmax(reader):
                        found.add((reader, 2))
                    elif (group := self._behind(reader)) is not None:
                        found.add((group, site_of.operands.index(here)))
                elif reader not in seen and not weighed:
                    seen.add(reader)
                    stack.append(reader)
        return found

    def _behind(self, scores: int) -> int | None:
        """The product in which scores weigh values."""
        seen, stack = {scores}, [scores]
        while stack:
            for reader in self._graph.consumers[stack.pop()]:
                if self._graph.sites[reader].op in _PRODUCTS_OF_TWO:
                    return reader
                if reader not in seen:
                    seen.add(reader)
                    stack.append(reader)
        return None

    def heads(self, site: int) -> int:
        """How many heads the attention below has: the third dimension from the end of its scores; 1 if unknown."""
        seen, stack = {site}, [site]
        while stack:
            for reader in self._graph.consumers[stack.pop()]:
                found = self._graph.sites[reader]
                if found.op in _SCORES and len(found.shape) > _SCORES_OF_ONE:
                    return found.shape[-3]
                if reader not in seen and not found.tensors:
                    seen.add(reader)
                    stack.append(reader)
        return 1

    def _meets_softmax(self, site: int) -> bool:
        """Whether a softmax comes before the next product."""
        seen = {site}
        stack = [site]
        while stack:
            for reader in self._graph.consumers[stack.pop()]:
                op = self._graph.sites[reader].op
                if op == "softmax":
                    return True
                if (
                    op not in _PRODUCTS_OF_TWO
                    and reader not in seen
                    and not self._graph.sites[reader].tensors
                ):
                    seen.add(reader)
                    stack.append(reader)
        return False


_SCORES = frozenset({"softmax", "scaled_dot_product_attention"})
_SCORES_OF_ONE = 3  # dimensions of the scores where there is only one head
_PRODUCTS_OF_TWO = frozenset({"matmul", "einsum", "baddbmm"})
