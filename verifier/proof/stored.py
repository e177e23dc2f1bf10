"""Stored tensors are rounded: what a model keeps in float32 is known to its roundoff and no better.

One model keeps a table that the other computes, or one weight for what the other makes of several (a folded batch
norm, a removed weight norm, merged branches). In float64 the two differ by the rounding of what was stored, which is
no difference of the programs. So the tensor is looked for of which the stored one is the rounding, and used in its
place: the programs then agree to float64's own rounding, or they do not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.cells import ORACLE, Cell
from verifier.errors import GraphDepartureError, ModelError
from verifier.graph.operators import CONSTANTS, MOVES, PRODUCTS, SELECTS
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.graph import Graph, Site
    from verifier.weights import Masters

Exact = dict[str, Tensor]
"""Tensors in float64 by the names of the stored ones that are their roundings."""

_SINGLE = Cell("cpu", "float32")


def tables(bench: Bench) -> tuple[Exact, Exact]:
    """For each side, tables it keeps that the other computes, as the other computes them in float64.

    A table counts as one where it is within rounding of what the other computes in float64, or in float32: angles far
    from 0 lose digits there.

    Args:
        bench: The two models on a few samples.
    """
    alignment, masters = bench.alignment, bench.subject.masters
    b, c = alignment.baseline, alignment.candidate
    sizes = {math.prod(site.shape) for graph in (b, c) for site in _constant(graph)}
    both = _held(b, masters.baseline, c, masters.candidate), _held(c, masters.candidate, b, masters.baseline)
    mapped = {
        name: each
        for name, each in masters.assemblies.items()
        if (name in both[1] and both[0].issuperset(each.names)) or _made(masters, name, sizes)
    }
    used = {name for assembly in mapped.values() for name in assembly.names}
    return (
        {
            **_written(b, c, masters.baseline),
            **_looked_up(bench, "baseline", "candidate", _kept(b, masters.baseline, both[0] | used)),
        },
        {
            **_written(c, b, masters.candidate),
            **_looked_up(bench, "candidate", "baseline", _kept(c, masters.candidate, both[1] | {*mapped})),
        },
    )


def _made(masters: Masters, name: str, sizes: Collection[int]) -> bool:
    """Whether one of the candidate's tensors is made of the baseline's, where it may be a table that this computes.

    Of models with weights of their own that is only claimed: what one keeps may stand where the other computes. It
    may be near to what this is computed from, too, as a weight is to the one whose norm was taken off it.
    """
    tensor = masters.candidate[name]
    if masters.info.mode != "as-is" or tensor.numel() not in sizes:
        return True
    assembly = masters.assemblies[name]
    if assembly.whole is not None:
        return False  # it would be held by both
    return torch.equal(assembly.stored(masters.baseline, tensor).to(tensor), tensor)


def _held(graph: Graph, stored: Mapping[str, Tensor], other: Graph, others: Mapping[str, Tensor]) -> set[str]:
    """Tensors with which both models compute, to the bit: these are the rounding of nothing.

    Unless the same operator reads what the other model makes of its own, and another that itself.
    """
    readers, there = _readers(graph), _readers(other)
    sizes: dict[int, list[str]] = {}
    for name in there:
        sizes.setdefault(others[name].numel(), []).append(name)
    found = set()
    for name, ops in readers.items():
        tensor = stored[name]
        alike = [
            each
            for each in sizes.get(tensor.numel(), ())
            if torch.equal(tensor.flatten(), others[each].to(tensor).flatten())
        ]
        made = {
            other.sites[k].op
            for site in (_constant(other) if alike else ())
            if math.prod(site.shape) == tensor.numel()
            for k in other.consumers[site.index]
        }
        if alike and (ops.isdisjoint(made) or any(ops & there[each] for each in alike)):
            found.add(name)
    return found


def _readers(graph: Graph) -> dict[str, set[str]]:
    """The operators that read each tensor that a model uses."""
    found: dict[str, set[str]] = {}
    for site in graph.sites:
        for use in site.tensors if site.live else ():
            found.setdefault(use.name, set()).add(site.op)
    return found


def _written(graph: Graph, other: Graph, stored: Mapping[str, Tensor]) -> Exact:
    """Numbers that a model keeps and reads as such, where the other has written one that they are the rounding of."""
    numbers = {name: float(stored[name]) for name in _numbers(graph, stored)}
    meant = {
        float(torch.tensor(value, dtype=kind)): value
        for site in (other.comparable if numbers else ())
        for value in site.attributes.values()
        if isinstance(value, float)
        for kind in _SINGLES
    }
    return {
        name: torch.full(stored[name].shape, meant[number], dtype=torch.float64)
        for name, number in numbers.items()
        if meant.get(number, number) != number
    }


def _numbers(graph: Graph, stored: Mapping[str, Tensor]) -> set[str]:
    """What a model keeps of one element and no operator is given: it is read as a number, or not at all."""
    as_tensors = {use.name for site in graph.sites for use in site.tensors}
    return {
        name
        for name, tensor in stored.items()
        if name not in as_tensors and tensor.numel() == 1 and tensor.dtype in _SINGLES
    }


_SINGLES = (torch.float16, torch.float32)


def _kept(graph: Graph, stored: Mapping[str, Tensor], mapped: Collection[str]) -> dict[str, Tensor]:
    """Tensors and numbers that a model uses and that were made of none of the other's."""
    names = {use.name for site in graph.sites if site.live for use in site.tensors}
    names |= _numbers(graph, stored)
    return {name: stored[name] for name in sorted(names.difference(mapped)) if _is_table(stored[name])}


def _is_table(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() > 0


def _constant(graph: Graph) -> Iterator[Site]:
    """Sites that compute the same whatever the inputs are."""
    for site in graph.sites:
        if graph.reads_inputs[site.index] or not site.dtype.startswith(("float", "complex")):
            continue
        if site.comparable or site.op in CONSTANTS:
            yield site


def _sums(site: Site) -> bool:
    """Whether terms are added in a site, which may cancel."""
    return site.op in {"add", "sub"} or site.op.startswith(PRODUCTS)


def _flat(tensor: Tensor) -> list[Tensor]:
    """What a tensor holds in float64, one after another; of complex numbers the real parts and the imaginary ones."""
    parts = [tensor.real, tensor.imag] if tensor.is_complex() else [tensor]
    return [part.detach().cpu().double().reshape(-1) for part in parts]


def _looked_up(bench: Bench, keeping: str, computing: str, kept: Mapping[str, Tensor]) -> Exact:
    """The tables one side has `kept` as the other computes them, whole or as much of them as is read."""
    computed = [*_constant(bench.graph(computing))]
    read = _places(bench, keeping, kept, {math.prod(site.shape) for site in computed})
    sizes = {tensor.numel() for tensor in kept.values()} | {len(part.places) for part in read}
    sites = [site.index for site in computed if math.prod(site.shape) in sizes]
    if not sites:
        return {}
    made = [
        {
            (site, k): part
            for site, value in _values(bench.at(cell=cell), computing, sites).items()
            for k, part in enumerate(_flat(value))
        }
        for cell in (ORACLE, _SINGLE)
    ]
    sums = {site.index for site in computed if _sums(site)}
    found = _before(bench.graph(keeping), bench.graph(computing), bench.masters(keeping), kept, made[0])
    for name, table in kept.items():
        exact = _flat(table)
        everything = _Part(name, torch.arange(table.numel()), exact)
        for part in (everything, *read):
            values = [_computed(made, held, sums) for held in part.held] if part.name == name else [None]
            if all(value is not None for value in values):
                exact = [
                    whole.index_put((part.places,), v)
                    for whole, v in zip(exact, values, strict=True)
                    if v is not None
                ]
                made_of = torch.complex(*exact) if table.is_complex() else exact[0]
                found[name] = made_of.reshape(table.shape)
                if part is everything:
                    break
    return found


def _before(
    graph: Graph,
    computing: Graph,
    stored: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    made: Mapping[tuple[int, int], Tensor],
) -> Exact:
    """Tables that a model puts together with another tensor of its own, as the other has computed what that gives.

    An exporter that computes what depends on no input stops where a table grows too large: `x @ w` is stored there,
    and the bias is added to it.
    """
    found: Exact = {}
    for site in graph.sites:
        if site.op not in _UNDONE or len(site.tensors) != len(_TWO) or graph.reads_inputs[site.index]:
            continue
        for own, name in enumerate(use.name for use in site.tensors):
            other = stored[site.tensors[1 - own].name].double()
            if name not in kept or kept[name].is_complex() or tuple(kept[name].shape) != site.shape:
                continue
            for (place, _), value in made.items():
                if value.numel() == kept[name].numel():
                    exact = _UNDONE[site.op][own](value.reshape(site.shape), other)
                    if rounds_to(exact, kept[name], summed=_sums(computing.sites[place])):
                        found[name] = exact
    return found


# For a table that comes first and one that comes second, what it was, given the result and the other tensor.
_TWO = (0, 1)
_UNDONE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "add": (torch.sub, torch.sub),
    "sub": (torch.add, lambda result, other: other - result),
    "mul": (torch.div, torch.div),
    "div": (torch.mul, lambda result, other: other / result),
}


def _computed(
    made: Sequence[Mapping[tuple[int, int], Tensor]], held: Tensor, sums: Collection[int]
) -> Tensor | None:
    """What is computed in float64 that `held` is the rounding of, as it is made there or in float32."""
    wide, _ = made
    for place, value in wide.items():
        if value.numel() == held.numel() and any(
            place in each and rounds_to(each[place], held, summed=place[0] in sums) for each in made
        ):
            return value
    return None


class _Part(NamedTuple):
    """What a model reads of a table, one after another: from which of its elements, and what they hold (`_flat`)."""

    name: str
    places: Tensor
    held: list[Tensor]


# Operators that only take numbers from a table or lay them out anew; what they did is read off the places they give.
_TAKES = (
    MOVES | SELECTS | {"_to_copy", "cat", "embedding", "flip", "float", "gather", "index_select", "repeat"}
)
_TAKES |= {"repeat_interleave", "roll", "stack", "tile", "to", "type_as"}


def _places(bench: Bench, side: str, kept: Mapping[str, Tensor], sizes: Collection[int]) -> list[_Part]:
    """Parts of tables, of one of the `sizes`, that a model reads: told by a run in which they hold their places."""
    graph = bench.graph(side)
    taking: set[int] = set()
    for site in graph.sites:
        tables = any(use.name in kept for use in site.tensors)
        if site.op in _TAKES and (tables or any(source in taking for source in site.inputs)):
            taking.add(site.index)
    wanted = [k for k in taking if graph.sites[k].comparable and math.prod(graph.sites[k].shape) in sizes]
    if not wanted:
        return []
    used = {use.name for k in taking for use in graph.sites[k].tensors if use.name in kept}
    first, numbered, flat = 0, {}, {}
    for name in sorted(used):
        flat[name] = first, _flat(kept[name])
        places = torch.arange(first, first + kept[name].numel()).double().reshape(kept[name].shape)
        numbered[name] = torch.complex(places, places) if kept[name].is_complex() else places
        first += kept[name].numel()
    try:
        given = _values(bench.at(subject=bench.subject.with_exact({side: numbered})), side, wanted)
    except (GraphDepartureError, ModelError):
        return []  # it chooses its way by what the tables hold
    held = _values(bench, side, wanted)
    found = []
    for k in wanted:
        if k not in given or k not in held:
            continue
        numbers, read = _flat(given[k]), _flat(held[k])
        for name, (start, table) in flat.items():
            own = (numbers[0] - start).long()
            inside = (own >= 0) & (own < len(table[0])) & (numbers[0] == start + own)
            alike = len(table) == len(read) and bool(inside.all()) and torch.equal(numbers[0], numbers[-1])
            if alike and all(torch.equal(part[own], each) for part, each in zip(table, read, strict=True)):
                found.append(_Part(name, own, read))
    return found


def _values(bench: Bench, side: str, sites: Collection[int]) -> dict[int, Tensor]:
    lane = bench.lane(side, stops=sites)
    found: dict[int, Tensor] = {}
    try:
        while (site := lane.advance()) is not None and len(found) < len(sites):
            if lane.tensor is not None:
                found[site] = lane.tensor.detach().clone()
    finally:
        lane.close()
    return found


def rounds_to(exact: Tensor, stored: Tensor, *, summed: bool = False) -> bool:
    """Whether every stored number is the exact one but for a few roundings to float32.

    Of sums, whose terms may cancel, a rounding is one of a typical number.
    """
    size = exact.abs()
    if summed:
        size = size.clamp(min=float(exact.square().mean().sqrt()))
    return bool(((stored - exact).abs() <= ROUNDINGS * SINGLE_ROUNDOFF * size).all())
