"""Stored tensors are rounded: what a model keeps in float32 is known to its roundoff and no better.

One model keeps a table that the other computes, or one weight for what the other makes of several (a folded batch
norm, a removed weight norm, merged branches). In float64 the two differ by the rounding of what was stored, which is
no difference of the programs. So the tensor is looked for of which the stored one is the rounding, and used in its
place: the programs then agree to float64's own rounding, or they do not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.cells import ORACLE, Cell
from verifier.errors import GraphDepartureError, ModelError
from verifier.graph.operators import MOVES, SELECTS, operator_name
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.graph import Graph, KeptCall, Site

Exact = dict[str, Tensor]
"""Tensors in float64 by the names of the stored ones that are their roundings."""

# Roundings a stored number may have gone through: a scale (a sum, a root and two products) and a product with it,
# each at most one unit roundoff; a power in float32 is wrong by up to two. In the mean of many they are about one.
_ROUNDINGS = 6.0
_ROUNDINGS_MEAN = 2.0
_SINGLE = Cell("cpu", "float32")


def tables(bench: Bench) -> tuple[Exact, Exact]:
    """For each side, tables it keeps that the other computes, as the other computes them in float64.

    A table counts as one where it is within rounding of what the other computes in float64, or in float32: angles far
    from 0 lose digits there.

    Args:
        bench: The two models on a few samples.
    """
    alignment, masters = bench.alignment, bench.subject.masters
    used = {name for assembly in masters.assemblies.values() for name in assembly.names}
    b, c = alignment.baseline, alignment.candidate
    return (
        _looked_up(bench, "baseline", "candidate", _kept(b, masters.baseline, used)),
        _looked_up(bench, "candidate", "baseline", _kept(c, masters.candidate, masters.assemblies)),
    )


def _kept(graph: Graph, stored: Mapping[str, Tensor], mapped: Collection[str]) -> dict[str, Tensor]:
    """Tensors that a model uses and that were made of none of the other's."""
    names = {use.name for site in graph.sites if site.live for use in site.tensors}
    return {name: stored[name] for name in sorted(names.difference(mapped)) if _is_table(stored[name])}


def _is_table(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() > 1


def _constant(graph: Graph) -> Iterator[Site]:
    """Sites that compute the same whatever the inputs are."""
    for site in graph.comparable:
        if not graph.reads_inputs[site.index] and site.dtype.startswith(("float", "complex")):
            yield site


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
    found: Exact = {}
    for name, table in kept.items():
        exact = _flat(table)
        everything = _Part(name, torch.arange(table.numel()), exact)
        for part in (everything, *read):
            values = [_computed(made, held) for held in part.held] if part.name == name else [None]
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


def _computed(made: Sequence[Mapping[tuple[int, int], Tensor]], held: Tensor) -> Tensor | None:
    """What is computed in float64 that `held` is the rounding of, as it is made there or in float32."""
    wide, _ = made
    for place, value in wide.items():
        if value.numel() == held.numel() and any(
            place in each and rounds_to(each[place], held) for each in made
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


def rounds_to(exact: Tensor, stored: Tensor) -> bool:
    """Whether every stored number is the exact one but for a few roundings to float32."""
    return bool(((stored - exact).abs() <= _ROUNDINGS * SINGLE_ROUNDOFF * exact.abs()).all())


class Linear(NamedTuple):
    """An operator that is linear in a weight that it keeps, as products of matrices, one for each group.

    Attributes:
        call: The operator, with its call.
        roles: The arguments that are its weight and its bias ("" for none).
        columns: What is multiplied: groups x rows x inputs.
        rows: How a result is laid out as groups x rows x outputs.
        matrix: How the weight is laid out as groups x outputs x inputs.
        back: How such a matrix is laid out as the weight.
    """

    call: KeptCall
    roles: tuple[str, str]
    columns: Tensor
    rows: Callable[[Tensor], Tensor]
    matrix: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def unrounded(linear: Linear, wanted: Tensor, limit: float, *, known: Collection[str] = ()) -> Exact | None:
    """The weights, by argument, with which the operator gives `wanted`, if those it keeps are their rounding.

    Args:
        linear: The operator, with its call in float64 on the right inputs.
        wanted: What it should give, in float64.
        limit: The relative error (NRMSE) that is none.
        known: The arguments that are the rounding of nothing.
    """
    call, (weight, bias) = linear.call, linear.roles
    bias = "" if bias in known else bias
    fixed = weight in known
    if fixed and not bias:
        return None
    given = call.run()[0][0]
    if given.shape != wanted.shape or not bool(wanted.isfinite().all()):
        return None
    left, columns = linear.rows(wanted - given), linear.columns
    kept = linear.matrix(call.arguments[weight])
    if fixed:
        columns, kept = columns[:, :, :0], kept[:, :, :0]
    if not _as_rounding(left, columns, kept, linear.rows(given), call.arguments.get(bias) if bias else None):
        return None
    scale = kept.square().mean(1).sqrt()
    if bias:
        columns = torch.cat([columns, columns.new_ones(*columns.shape[:2], 1)], 2)
        size = torch.maximum(call.arguments[bias].square().mean(), wanted.square().mean()).sqrt()
        scale = torch.cat([scale, size.expand(len(scale), 1)], 1)
    scale = (scale * SINGLE_ROUNDOFF).clamp_min(torch.finfo(torch.float64).tiny)
    moved = _least(columns * scale[:, None], left)
    if moved is None or float(moved.square().mean().sqrt()) > _ROUNDINGS_MEAN:
        return None
    change = (moved * scale[:, :, None]).mT
    part = change[:, :, : kept.shape[2]]
    allowed = _ROUNDINGS * SINGLE_ROUNDOFF * torch.maximum(kept.abs(), kept.abs().mean(2, keepdim=True))
    if bool((part.abs() > allowed).any()):
        return None
    found = {} if fixed else {weight: linear.back(kept + part)}
    if bias:
        found[bias] = call.arguments[bias] + change[:, :, -1].reshape(-1)
    for role, tensor in found.items():
        call = call.with_argument(role, tensor)
    return found if compared(call.run()[0][0], wanted).within(limit) else None


def _as_rounding(left: Tensor, columns: Tensor, kept: Tensor, given: Tensor, bias: Tensor | None) -> bool:
    """Whether a difference is as large as roundings of the weights make it, however many weights could explain it.

    Roundings of single weights add up as the root of the sum of squares; those of a scale that many share add up to
    as much of the result.
    """
    alone = float((columns.square() @ kept.mT.square()).sum())
    shared = float(given.square().sum())
    if bias is not None:
        alone += float(bias.square().sum()) * columns.shape[1]
    allowed = _ROUNDINGS_MEAN * math.sqrt(alone) + _SHARED * math.sqrt(shared)
    return float(left.square().sum()) <= (SINGLE_ROUNDOFF * allowed) ** 2


_SHARED = 3.0  # a sum under a root, the root, and the product with it


def linear_in(site: Site, call: KeptCall) -> Linear | None:
    """The operator as one that is linear in what it keeps, if it is."""
    op = operator_name(call.function)
    roles = _ROLES.get(op)
    if roles is None or roles[0] not in {use.role for use in site.tensors}:
        return None
    x, bias = call.arguments.get(roles[2]), call.arguments.get(roles[1])
    kept = isinstance(bias, Tensor) and roles[1] in {use.role for use in site.tensors}
    if not isinstance(x, Tensor) or (isinstance(bias, Tensor) and not kept):
        return None
    named = roles[0], roles[1] if kept else ""
    weight = call.arguments[roles[0]]
    if op == "embedding":
        return _lookup(call, named, x, weight)
    if op.startswith("conv"):
        return _convolution(call, named, x, weight)
    if weight.dim() != 2:
        return None
    turned = op != "linear"
    return Linear(
        call,
        named,
        x.reshape(1, -1, x.shape[-1]),
        lambda t: t.reshape(1, -1, t.shape[-1]),
        lambda w: (w.mT if turned else w)[None],
        lambda m: (m[0].mT if turned else m[0]).reshape(weight.shape),
    )


# For each operator the arguments that are its weight, its bias, and what it works on.
_ROLES = {
    "addmm": ("mat2", "input", "mat1"),
    "conv1d": ("weight", "bias", "input"),
    "conv2d": ("weight", "bias", "input"),
    "embedding": ("weight", "", "input"),
    "linear": ("weight", "bias", "input"),
    "matmul": ("other", "", "input"),
}


def _lookup(call: KeptCall, roles: tuple[str, str], x: Tensor, weight: Tensor) -> Linear:
    """A table as the product of which row is taken with the rows that are taken at all."""
    used, place = torch.unique(x, return_inverse=True)
    return Linear(
        call,
        roles,
        F.one_hot(place.reshape(1, -1), len(used)).to(weight),
        lambda t: t.reshape(1, -1, t.shape[-1]),
        lambda w: w[used].mT[None],
        lambda m: weight.index_copy(0, used, m[0].mT),
    )


def _convolution(call: KeptCall, roles: tuple[str, str], x: Tensor, weight: Tensor) -> Linear | None:
    dimensions, groups = weight.dim() - 2, call.arguments.get("groups", 1)
    padding = call.arguments.get("padding", 0)
    if x.dim() != dimensions + 2 or isinstance(padding, str):
        return None
    stride, padding, dilation = (
        _spread(value, dimensions)
        for value in (call.arguments.get("stride", 1), padding, call.arguments.get("dilation", 1))
    )
    kernel = tuple(weight.shape[2:])
    if dimensions == 1:
        x, kernel = x.unsqueeze(2), (1, *kernel)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    columns = F.unfold(x, kernel, dilation, padding, stride)  # samples, groups x inputs, places
    columns = _grouped(columns, groups)
    return Linear(
        call,
        roles,
        columns,
        lambda t: _grouped(t.flatten(2), groups),
        lambda w: w.reshape(groups, -1, w[0].numel()),
        lambda m: m.reshape(weight.shape),
    )


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    """Samples x channels x places as groups x rows x channels of a group."""
    samples, channels, places = tensor.shape
    tensor = tensor.reshape(samples, groups, channels // groups, places)
    return tensor.permute(1, 0, 3, 2).reshape(groups, samples * places, -1)


def _spread(value: Any, dimensions: int) -> tuple[int, ...]:
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * dimensions if len(found) == 1 else found


_MOST = 2  # rows for each unknown: enough to tell, and no more than needed


def _least(columns: Tensor, wanted: Tensor) -> Tensor | None:
    """The smallest x with `columns` x = `wanted` in each group, as nearly as can be; None where none is found."""
    _, rows, unknown = columns.shape
    step = max(1, rows // max(_MOST * unknown, _AFFORDABLE // unknown**2))
    columns, wanted = columns[:, ::step].cpu(), wanted[:, ::step].cpu()
    found = wanted.new_zeros(len(columns), unknown, wanted.shape[2])
    try:
        for _ in range(2):  # and once more with what the first was off by
            left = wanted - columns @ found
            found = found + torch.linalg.lstsq(columns, left, rcond=_RANK, driver="gelsy").solution
    except RuntimeError:
        return None
    return found if bool(found.isfinite().all()) else None


_AFFORDABLE = 2_000_000_000  # rows times unknowns squared: about a second
# Singular values below this share of the largest say nothing: a change of one roundoff of float32 along them changes
# the result by less than float64's own rounding, 2^-53 / 2^-24 of it.
_RANK = 2.0**-27
