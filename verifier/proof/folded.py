"""Pairs of a product with one that holds the norm behind it as well: told by what they keep, before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from verifier.align import Pair
from verifier.diagnose.folds import fold

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    wrong, right = [], []
    graphs, held = (alignment.baseline, alignment.candidate), (masters.baseline, masters.candidate)
    paired = alignment.partner, alignment.partner_back
    for pair in alignment.pairs:
        for side in (0, 1):
            norm = _norm_behind(graphs[side], pair[side])
            other = graphs[1 - side].sites[pair[1 - side]]
            beside = None if norm is None else paired[side].get(norm.index)
            if norm is None or (beside is not None and graphs[1 - side].sites[beside].tensors):
                continue
            product = graphs[side].sites[pair[side]]
            given, of_norm = _given(product, held[side]), _given(norm, held[side])
            if product.op == other.op and _holds(_given(other, held[1 - side]), product.op, given, of_norm):
                wrong += [pair, *(each for each in alignment.pairs if each[side] == norm.index)]
                ends = norm.index, pair[1 - side]
                right.append(Pair(*(ends if side == 0 else ends[::-1])))
                break
    return replace(alignment.repaired(wrong, right, reason), rebuilt=True) if wrong else alignment


def _norm_behind(graph: Graph, index: int) -> Site | None:
    """The norm on running statistics that alone reads a site."""
    readers = graph.consumers[index]
    norm = graph.sites[readers[0]] if len(readers) == 1 else None
    if norm is None or norm.op != "batch_norm" or norm.attributes.get("training", False):
        return None
    return norm if {"running_mean", "running_var"} <= {use.role for use in norm.tensors} else None


def _given(site: Site, held: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**site.attributes, **{use.role: held[use.name] for use in site.tensors}}


def _holds(kept: Mapping[str, Any], op: str, given: Mapping[str, Any], norm: Mapping[str, Any]) -> bool:
    """Whether what an operator keeps is much nearer to the product with its norm than to the product alone."""
    held, plain = kept.get("weight"), given.get("weight")
    if not op.startswith(("conv", "linear")) or not isinstance(held, Tensor) or not isinstance(plain, Tensor):
        return False
    if held.shape != plain.shape:
        return False
    whole = fold(op, given, norm)[0]["weight"]
    distance = float((held.double() - whole).norm())
    return distance < _NEARER * min(float((held.double() - plain.double()).norm()), float(whole.norm()))


_NEARER = 0.5  # also with a channel that is wrong
