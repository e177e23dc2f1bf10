"""Where a graph uses its parameters and buffers, as the alignment of differently built models sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from verifier.align.signatures import canonical_order
from verifier.graph.operators import MOVES, PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from verifier.graph import Graph, Site

_MANY = 2  # projections of one tensor side by side make a bundle


class Held(NamedTuple):
    """One parameter or buffer where it is used.

    `turned` if it is stored as (in, out) instead of (out, in), `added` if it is added to something there.
    """

    name: str
    shape: tuple[int, ...]
    site: int
    turned: bool = False
    added: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """Tensors that play one part: usually one, several where projections of one tensor stand side by side.

    `size` is what has to agree, `part` what should: the part the tensor plays in its operator.
    """

    size: Hashable
    part: str
    members: tuple[Held, ...]


def uses_of(graph: Graph, without: Collection[str] = ()) -> list[Use]:
    """Where a graph uses parameters and buffers but those of `without`, in the canonical order of the dataflow.

    What is computed from parameters alone counts as used where it first meets data.
    """
    held = {site: [use for use in uses if use[0].name not in without] for site, uses in _held(graph).items()}
    found: list[Use] = []
    at: dict[tuple[int, int], int] = {}
    biases: dict[int, list[Held]] = {}
    bundle_of: dict[int, int] = {}
    for index in canonical_order(graph):
        site = graph.sites[index]
        weight = bundle_of.get(source_of(graph, index)) if site.op == "add" else None
        for use in held.get(index, ()):
            tensor, part = use
            if part != "weight" or not _projects(site) or len(tensor.shape) < _MANY:
                if weight is not None and part == "bias":
                    biases.setdefault(weight, []).append(tensor)
                else:
                    found.append(Use(math.prod(tensor.shape), part, (tensor,)))
                continue
            out, into = _out_in(tensor)
            source = source_of(graph, index) if site.op in _PROJECTIONS else None
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
            if weight is not None:
                bundle_of[index] = weight
    for weight, tensors in biases.items():
        found[weight + 1] = Use(sum(math.prod(t.shape) for t in tensors), "bias", tuple(tensors))
    return [use for use in found if use.members]


_PROJECTIONS = frozenset({"linear", "addmm", "matmul"})


def _held(graph: Graph) -> dict[int, list[tuple[Held, str]]]:
    """For each site that depends on data, the tensors it uses and the part each plays there."""
    depends = graph.reads_inputs
    used: set[str] = set()
    derived: list[dict[str, tuple[tuple[int, ...], str]]] = []
    held: dict[int, list[tuple[Held, str]]] = {}
    for site in graph.sites:
        own = {use.name: (use.shape, _part(site, use.role, use.name)) for use in site.tensors}
        for source in site.inputs:
            if source >= 0 and not depends[source]:
                for name, (shape, _) in derived[source].items():
                    if name not in used or not depends[site.index]:
                        own.setdefault(name, (shape, _part(site, "", name)))
        derived.append(own)
        if depends[site.index] and own and site.comparable and site.output == 0:
            used.update(own)
            held[site.index] = [
                (Held(name, shape, site.index, turned_at(site, name)), part)
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


def turned_at(site: Site, name: str) -> bool:
    """Whether a site that holds a weight reads it as (in, out)."""
    roles = {use.name: use.role for use in site.tensors}
    return (site.op == "addmm" and roles.get(name) == "mat2") or (
        site.op == "matmul" and bool(site.tensors) and roles.get(name) in {"other", "mat2", "arg1"}
    )


def _out_in(tensor: Held) -> tuple[int, int]:
    if tensor.turned:
        return tensor.shape[-1], math.prod(tensor.shape[:-1])
    return tensor.shape[0], math.prod(tensor.shape[1:])


def source_of(graph: Graph, index: int) -> int:
    """What a projection reads, seen through operators that only lay it out anew."""
    while True:
        above = [source for source in graph.sites[index].inputs if source < 0 or graph.sites[source].live]
        index = above[0] if above else index
        if index < 0 or not above or graph.sites[index].op not in MOVES:
            return index
