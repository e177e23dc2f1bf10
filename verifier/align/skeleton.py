"""Pairing where two models use their parameters, whatever operators they build the rest from.

Two implementations of one function may agree in no operator but those that hold weights: attention in one call or
in twelve, three projections or one, a norm in one operator or in five. What they share is the sequence in which
the dataflow meets the weights. So the uses of tensors are matched, as a sequence of sizes, rather than sites.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from verifier.align.layouts import layouts
from verifier.align.recipes import Piece, Recipe
from verifier.align.sequence import longest_common_subsequence
from verifier.align.signatures import canonical_order
from verifier.graph.operators import MOVES, PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from verifier.graph import Graph, Site

_MANY = 2  # projections of one tensor side by side make a bundle


class _Tensor(NamedTuple):
    """One parameter or buffer where it is used; `turned` if it is stored as (in, out) instead of (out, in)."""

    name: str
    shape: tuple[int, ...]
    site: int
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """Tensors that play one part: usually one, several where projections of one tensor stand side by side.

    `size` is what has to agree, `part` what should: the part the tensor plays in its operator.
    """

    size: Hashable
    part: str
    members: tuple[_Tensor, ...]


# The sites on the candidate's side, and the recipes that are possible there.
_Choice = tuple[frozenset[int], list[dict[str, Recipe]]]


@dataclass(frozen=True)
class Skeleton:
    """What the skeletons of two graphs have in common.

    Attributes:
        pairs: Pairs of sites that give the same thing behind the same tensors.
        recipes: For each candidate tensor that was matched, how it is made from the baseline's.
        choices: For each bundle that was matched by a guess, the other recipes that are possible.
    """

    pairs: tuple[tuple[int, int], ...]
    recipes: Mapping[str, Recipe]
    choices: tuple[tuple[Mapping[str, Recipe], ...], ...] = ()


def match_skeletons(baseline: Graph, candidate: Graph, partner: Mapping[int, int]) -> Skeleton:
    """Match the uses of tensors in two graphs.

    Args:
        baseline: Graph of the baseline.
        candidate: Graph of the candidate.
        partner: Candidate site for each baseline site that is paired already.
    """
    ours, theirs = uses_of(baseline), uses_of(candidate)
    back = {c: b for b, c in partner.items()}
    matched = _matched(ours, theirs, partner, back)
    recipes: dict[str, Recipe] = {}
    choices: list[_Choice] = []
    sites: dict[int, list[int]] = {}
    roles = _Roles(baseline), _Roles(candidate)
    for i, j in matched:
        if len(ours[i].members) == len(theirs[j].members) == 1:
            b, c = ours[i].members[0], theirs[j].members[0]
            recipes.setdefault(c.name, _recipe((b,), turned=c.turned))
            sites.setdefault(b.site, []).append(c.site)
            continue
        members, found = _shared_out(ours[i], theirs[j], roles)
        if not found:
            continue
        for name, recipe in found[0].items():
            recipes.setdefault(name, recipe)
        choices.append((frozenset(each.site for each in theirs[j].members), found))
        for b_site, c_site in members:
            sites.setdefault(b_site, []).append(c_site)
    return Skeleton(tuple(_last(sites, baseline, candidate)), recipes, tuple(_grouped(choices)))


def _matched(
    ours: Sequence[Use], theirs: Sequence[Use], partner: Mapping[int, int], back: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Positions of uses that belong together: by size and part, then between those by size alone."""

    def keys(uses: Sequence[Use], paired: Mapping[int, int], *, own: bool, part: bool) -> list[Hashable]:
        found: list[Hashable] = []
        for use in uses:
            site = use.members[0].site
            if len(use.members) == 1 and site in paired:
                found.append(("pair", site if own else paired[site], use.size, use.part))
            else:
                found.append((use.size, use.part if part else ""))
        return found

    found = longest_common_subsequence(
        keys(ours, partner, own=True, part=True), keys(theirs, back, own=False, part=True)
    )
    loose_b = keys(ours, partner, own=True, part=False)
    loose_c = keys(theirs, back, own=False, part=False)
    more: list[tuple[int, int]] = []
    previous = (-1, -1)
    for i, j in [*found, (len(ours), len(theirs))]:
        gap_b, gap_c = range(previous[0] + 1, i), range(previous[1] + 1, j)
        previous = (i, j)
        if gap_b and gap_c:
            here = longest_common_subsequence([loose_b[k] for k in gap_b], [loose_c[k] for k in gap_c])
            more.extend((gap_b[a], gap_c[b]) for a, b in here)
    return sorted([*found, *more])


def uses_of(graph: Graph) -> list[Use]:
    """Where a graph uses parameters and buffers, in the canonical order of the dataflow.

    What is computed from parameters alone counts as used where it first meets data.
    """
    held = _held(graph)
    found: list[Use] = []
    at: dict[tuple[int, int], int] = {}
    biases: dict[int, list[_Tensor]] = {}
    for index in canonical_order(graph):
        site = graph.sites[index]
        weight = None
        for use in held.get(index, ()):
            tensor, part = use
            if part != "weight" or not _projects(site) or len(tensor.shape) < _MANY:
                if weight is not None and part == "bias":
                    biases.setdefault(weight, []).append(tensor)
                else:
                    found.append(Use(math.prod(tensor.shape), part, (tensor,)))
                continue
            out, into = _out_in(tensor)
            source = _source(graph, index) if site.op in _PROJECTIONS else None
            weight = None if source is None else at.get((source, into))
            if weight is None:
                found.append(Use((out, into), part, (tensor,)))
                if source is not None:
                    weight = at[source, into] = len(found) - 1
                    found.append(Use(0, "bias", ()))  # its biases, once all are known
            else:
                before = found[weight]
                total = before.size[0] + out  # type: ignore[index] # a projection's size is a pair
                found[weight] = Use((total, into), part, (*before.members, tensor))
    for weight, tensors in biases.items():
        found[weight + 1] = Use(sum(math.prod(t.shape) for t in tensors), "bias", tuple(tensors))
    return [use for use in found if use.members]


_PROJECTIONS = frozenset({"linear", "addmm", "matmul"})


def _held(graph: Graph) -> dict[int, list[tuple[_Tensor, str]]]:
    """For each site that depends on data, the tensors it uses and the part each plays there."""
    depends: list[bool] = []
    used: set[str] = set()
    derived: list[dict[str, tuple[tuple[int, ...], str]]] = []
    held: dict[int, list[tuple[_Tensor, str]]] = {}
    for site in graph.sites:
        depends.append(any(source < 0 or depends[source] for source in site.inputs))
        own = {use.name: (use.shape, _part(site, use.role, use.name)) for use in site.tensors}
        for source in site.inputs:
            if source >= 0 and not depends[source]:
                for name, (shape, _) in derived[source].items():
                    if name not in used or not depends[-1]:
                        own.setdefault(name, (shape, _part(site, "", name)))
        derived.append(own)
        if depends[-1] and own and site.comparable and site.output == 0:
            used.update(own)
            held[site.index] = [
                (_Tensor(name, shape, site.index, _turned(site, name)), part)
                for name, (shape, part) in own.items()
            ]
            if site.op == "addmm":  # which names its bias first
                held[site.index].sort(key=lambda use: use[1] == "bias")
    return held


def _part(site: Site, role: str, name: str) -> str:
    """Which part a tensor plays: told by the argument it is, else by the operator, last by its own name."""
    for part, signs in _SIGNS.items():
        if any(sign in role for sign in signs):
            return part
    leaf = name.rpartition(".")[2]
    for part in ("mean", "variance"):
        if any(sign in leaf for sign in _SIGNS[part]):
            return part
    if site.op == "addmm":
        return "bias" if role == "input" else "weight"
    if site.op.startswith(PRODUCTS) or site.op in {"mul", "div"}:
        return "weight"
    return "bias" if site.op in {"add", "sub"} else "other"


_SIGNS = {"weight": ("weight",), "bias": ("bias",), "mean": ("mean",), "variance": ("var",)}


def _projects(site: Site) -> bool:
    return site.op.startswith(PRODUCTS) or "attention" in site.op


def _turned(site: Site, name: str) -> bool:
    roles = {use.name: use.role for use in site.tensors}
    return (site.op == "addmm" and roles.get(name) == "mat2") or (
        site.op == "matmul" and bool(site.tensors) and roles.get(name) in {"other", "mat2", "arg1"}
    )


def _out_in(tensor: _Tensor) -> tuple[int, int]:
    if tensor.turned:
        return tensor.shape[-1], math.prod(tensor.shape[:-1])
    return tensor.shape[0], math.prod(tensor.shape[1:])


def _source(graph: Graph, index: int) -> int:
    """What a projection reads, seen through operators that only lay it out anew."""
    while True:
        above = [source for source in graph.sites[index].inputs if source < 0 or graph.sites[source].live]
        index = above[0] if above else index
        if index < 0 or not above or graph.sites[index].op not in MOVES:
            return index


def _recipe(tensors: Sequence[_Tensor], *, turned: bool) -> Recipe:
    return Recipe(tuple(Piece(each.name, transposed=each.turned != turned) for each in tensors))


def _shared_out(
    ours: Use, theirs: Use, roles: tuple[_Roles, _Roles]
) -> tuple[list[tuple[int, int]], list[dict[str, Recipe]]]:
    """Pairs of sites in two bundles of one size, and the possible recipes, the likeliest first."""
    b = sorted(ours.members, key=lambda tensor: roles[0].rank(tensor.site))
    c = sorted(theirs.members, key=lambda tensor: roles[1].rank(tensor.site))
    if sorted(map(_rows, b)) != sorted(map(_rows, c)):
        return [], [_cut(b, c, order) for order in _orders(max(len(b), len(c)))]
    if [*map(_rows, b)] != [*map(_rows, c)]:  # sizes say which is which, roles among those of one size
        b, c = sorted(b, key=_rows), sorted(c, key=_rows)
    recipes = [
        {two.name: _recipe((b[k],), turned=two.turned) for k, two in zip(order, c, strict=True)}
        for order in _orders(len(b))
        if all(_rows(b[k]) == _rows(two) for k, two in zip(order, c, strict=True))
    ]
    return [(one.site, two.site) for one, two in zip(b, c, strict=True)], recipes


def _cut(b: Sequence[_Tensor], c: Sequence[_Tensor], order: Sequence[int]) -> dict[str, Recipe]:
    """Recipes where one side's rows are put together otherwise than the other's, in `order` on the finer side."""
    if len(b) >= len(c):
        b = [b[k] for k in order]
    else:
        c = [c[k] for k in order]
    found = {}
    rows = [(tensor, row) for tensor in b for row in (0, _rows(tensor))]
    ends: list[tuple[_Tensor, int, int]] = []
    start = 0
    for tensor, stop in rows[1::2]:
        ends.append((tensor, start, start + stop))
        start += stop
    position = 0
    for tensor in c:
        stop = position + _rows(tensor)
        pieces = []
        for other, first, last in ends:
            low, high = max(first, position), min(last, stop)
            if low < high:
                turned = other.turned != tensor.turned
                if (low, high) == (first, last):
                    pieces.append(Piece(other.name, transposed=turned))
                else:
                    pieces.append(Piece(other.name, low - first, high - first, transposed=turned))
        found[tensor.name] = Recipe(tuple(pieces))
        position = stop
    return found


def _rows(tensor: _Tensor) -> int:
    return tensor.shape[-1] if tensor.turned else tensor.shape[0]


def _orders(count: int) -> list[tuple[int, ...]]:
    """The orders worth a trial, as they are first: all of three, otherwise that and its reverse."""
    if count <= _FEW:
        return list(itertools.permutations(range(count)))
    return [tuple(range(count)), tuple(reversed(range(count)))]


_FEW = 3  # query, key and value


def _last(sites: Mapping[int, Sequence[int]], baseline: Graph, candidate: Graph) -> Iterator[tuple[int, int]]:
    """Pairs of sites behind the same tensors, the last where one side has several, if they can give one tensor."""
    chosen: dict[int, int] = {}
    for b in sorted(sites):
        chosen[max(sites[b])] = b  # a later site of the baseline takes an earlier one's place
    for c, b in chosen.items():
        if next(layouts(baseline.sites[b].shape, candidate.sites[c].shape), None) is not None:
            yield b, c


def _grouped(choices: Sequence[_Choice]) -> list[tuple[Mapping[str, Recipe], ...]]:
    """Alternatives at one place, weights and biases together."""
    found: dict[frozenset[int], list[dict[str, Recipe]]] = {}
    for sites, recipes in choices:
        here = found.setdefault(sites, [{} for _ in recipes])
        if len(here) == len(recipes):
            for merged, recipe in zip(here, recipes, strict=True):
                merged.update(recipe)
    return [tuple(each) for each in found.values() if len(each) > 1]


class _Roles:
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


_PRODUCTS_OF_TWO = frozenset({"matmul", "einsum", "baddbmm"})
