"""How many terms a site sums for one element of its tensor: what rounding errors grow with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.graph.operators import MOVES, SELECTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from verifier.graph.sites import Graph

# Operators that sum along dimensions which their result keeps: the last one, or all that a channel is spread over.
_ALONG_LAST = frozenset({"softmax", "log_softmax", "layer_norm", "rms_norm", "normalize", "cumsum"})
_ALONG_CHANNEL = frozenset({"batch_norm", "group_norm", "instance_norm"})
_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "addmm", "einsum", "scaled_dot_product_attention"})


def reduction(graph: Graph, index: int) -> int:
    """The number of terms in one element of the tensor that a site gives, at least 1.

    For weights of two dimensions or more, the elements that belong to one output channel; for products of two
    tensors, the last dimension of the first; for norms, what their statistics are taken over; else how many
    elements go in for one that comes out. An upper estimate: it only ever widens a budget, by its root.
    """
    site = graph.sites[index]
    size = max(1, math.prod(site.shape))
    found = [1]
    found += [math.prod(use.shape[1:]) for use in site.tensors if len(use.shape) > 1]
    shapes = [graph.sites[k].shape for k in site.inputs if k >= 0]
    found += [math.prod(shape) // size for shape in shapes]
    if site.op in _PRODUCTS:
        found += [shape[-1] for shape in shapes[:1] if shape]
    if site.op in _ALONG_LAST:
        found += site.shape[-1:]
    if site.op in _ALONG_CHANNEL and len(site.shape) > 1:
        found.append(size // max(1, site.shape[1]))
    return max(found)


def stretches(graph: Graph, paired: Collection[int]) -> list[int]:
    """For each site, how many terms are summed one after the other since the last of the `paired` sites above it.

    Operators in a row that nothing was compared between round one after the other, as partial sums do: the loop that
    stands beside one `cumsum` is a sum of as many terms as it has steps. What only lays out or cuts rounds nothing.
    """
    found: list[int] = []
    for site in graph.sites:
        above = [found[index] for index in site.inputs if 0 <= index < len(found) and index not in paired]
        own = 0 if site.op in MOVES | SELECTS else reduction(graph, site.index)
        found.append(own + max(above, default=0))
    return found


def accumulated(graph: Graph, own: Sequence[int]) -> list[int]:
    """For each site, the longest sum at it or anywhere above it, `own` being each one's: its cost has come along."""
    longest: list[int] = []
    for site in graph.sites:
        above = [longest[index] for index in site.inputs if 0 <= index < len(longest)]
        longest.append(max([own[site.index], *above]))
    return longest
