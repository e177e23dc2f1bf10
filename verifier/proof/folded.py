"""Pairs of a product with one that holds the norm behind it as well: told by what they keep, before anything runs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.align import Pair
from verifier.diagnose.folds import fold
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.align import Alignment
    from verifier.graph import Graph, Site
    from verifier.weights import Masters


def with_norms_paired(alignment: Alignment, masters: Masters, reason: str) -> Alignment:
    """The alignment where a product that holds another with the norm behind it is the partner of that norm.

    Where a wire was moved or a shape is another one, its place alone may pair it with the product.

    Args:
        alignment: The pairs.
        masters: The tensors of both models.
        reason: Why a site has no partner any more.
    """
    wrong: list[Pair] = []
    right: list[Pair] = []
    graphs, held = (alignment.baseline, alignment.candidate), (masters.baseline, masters.candidate)
    paired = alignment.partner, alignment.partner_back
    for pair in alignment.pairs:
        for side in (0, 1):
            here, there = graphs[side], graphs[1 - side]
            product, other = here.sites[pair[side]], there.sites[pair[1 - side]]
            ends = _moved(here, product, there, other, held[side], held[1 - side])
            if ends is None and not _scaling(there, other.index):
                scaling = _scaling(here, product.index)
                folds = scaling and product.op == other.op and not _has_own(there, paired[side], scaling)
                if folds and _holds(
                    _given(other, held[1 - side]),
                    product.op,
                    _given(product, held[side]),
                    scaling[-1],
                    held[side],
                ):
                    ends = [product, *scaling], [other]
            if ends is None:
                continue
            taken = [{site.index for site in each} for each in ends]
            wrong += [
                each for each in alignment.pairs if each[side] in taken[0] or each[1 - side] in taken[1]
            ]
            last = ends[0][-1].index, ends[1][-1].index
            right.append(Pair(*(last if side == 0 else last[::-1])))
            break
    return replace(alignment.repaired(wrong, right, reason), rebuilt=True) if right else alignment


def _scaling(graph: Graph, index: int, *, numbers: bool = False) -> list[Site]:
    """What alone stands behind a site and scales it, by what does not depend on the inputs.

    A norm on running statistics, or a multiplication with what is added before and behind it; empty where there is
    none. It ends before `numbers` of the program, unless these count, too.
    """
    norm = _norm_behind(graph, index)
    if norm is not None:
        return [norm]
    found: list[Site] = []
    while len(readers := graph.consumers[index]) == 1:
        site = graph.sites[readers[0]]
        beside = [source for source in site.inputs if source != index]
        fixed = all(source >= 0 and not graph.reads_inputs[source] for source in beside)
        if site.op not in _AFFINE or not fixed or site.shape != graph.sites[index].shape:
            break
        if not (numbers or beside or site.tensors):
            break
        found.append(site)
        index = site.index
    return found if any(site.op in _TIMES for site in found) else []


_TIMES = {"mul", "div"}
_AFFINE = _TIMES | {"add", "rsub", "sub"}


def _has_own(graph: Graph, partner: Mapping[int, int], scaling: Sequence[Site]) -> bool:
    """Whether the other model scales there as well."""
    beside = [graph.sites[partner[site.index]] for site in scaling if site.index in partner]
    return any(site.op in _TIMES or (site.tensors and site.op in _AFFINE | {"batch_norm"}) for site in beside)


def _moved(
    here: Graph,
    product: Site,
    there: Graph,
    other: Site,
    held: Mapping[str, Tensor],
    held_there: Mapping[str, Tensor],
) -> tuple[list[Site], list[Site]] | None:
    """A product and what scales it, and the same of its twin, which leaves the bias to what it adds behind."""
    twin = _product_above(there, other)
    given, of_twin = _given(product, held), _given(twin, held_there)
    biases = [isinstance(each.get("bias"), Tensor) for each in (given, of_twin)]
    if product.op != twin.op or biases != [True, False]:
        return None
    behind = _scaling(there, twin.index, numbers=True)
    whole = [site.op for site in behind] == ["mul", "add"]  # all is added up there
    scaling = _scaling(here, product.index, numbers=whole)
    behind = behind if whole else _scaling(there, twin.index)
    if not scaling or [site.op for site in behind] != ["mul", "add"]:
        return None
    added = [held_there[use.name].flatten() for use in behind[1].tensors]
    kept = [held[use.name].flatten() for site in scaling for use in site.tensors]
    if not added or any(torch.equal(*each) for each in itertools.product(added, kept)):
        return None  # nothing came in: the bias is missing
    return [product, *scaling], [twin, *behind]


def _product_above(graph: Graph, site: Site) -> Site:
    """What alone is scaled and shifted to give a site; the site itself where that is nothing."""
    while site.op in _AFFINE:
        above = [k for k in site.inputs if k < 0 or graph.reads_inputs[k]]
        if len(above) != 1 or above[0] < 0 or len(graph.consumers[above[0]]) != 1:
            break
        site = graph.sites[above[0]]
    return site


def _norm_behind(graph: Graph, index: int) -> Site | None:
    """The norm on running statistics that alone reads a site."""
    readers = graph.consumers[index]
    norm = graph.sites[readers[0]] if len(readers) == 1 else None
    if norm is None or norm.op != "batch_norm" or norm.attributes.get("training", False):
        return None
    return norm if {"running_mean", "running_var"} <= {use.role for use in norm.tensors} else None


def _given(site: Site, held: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**site.attributes, **{use.role: held[use.name] for use in site.tensors}}


def _holds(
    kept: Mapping[str, Any], op: str, given: Mapping[str, Any], scaling: Site, held: Mapping[str, Tensor]
) -> bool:
    """Whether what an operator keeps is much nearer to the product with what scales it than to the product alone."""
    own, plain = kept.get("weight"), given.get("weight")
    if not op.startswith(("conv", "linear")) or not isinstance(own, Tensor) or not isinstance(plain, Tensor):
        return False
    if own.shape != plain.shape:
        return False
    if scaling.op == "batch_norm":
        whole = fold(op, given, _given(scaling, held))[0]["weight"]
    else:
        whole = _by_rows(plain.double(), own.double())
        moved = (own.double() - plain.double()).flatten(1).norm(dim=1) > _ROUNDED * plain.double().flatten(
            1
        ).norm(dim=1)
        if float(moved.double().mean()) < _MOST:
            return False
    distance = float((own.double() - whole).norm())
    return distance < _NEARER * min(float((own.double() - plain.double()).norm()), float(whole.norm()))


def _by_rows(plain: Tensor, own: Tensor) -> Tensor:
    """The rows of one weight, each times the number that makes it most like the other's."""
    rows, wanted = plain.flatten(1), own.flatten(1)
    power = rows.square().sum(1, keepdim=True)
    factor = (rows * wanted).sum(1, keepdim=True) / power.clamp_min(torch.finfo(rows.dtype).tiny)
    return (rows * factor).reshape(plain.shape)


_NEARER = 0.5  # also with a channel that is wrong
_MOST = 0.5  # of all rows: a factor that is learnt leaves few of them as they are
_ROUNDED = ROUNDINGS * SINGLE_ROUNDOFF
