"""Sharing out the projections of an attention whose query, key and value are not projected from one tensor.

One call that is given all of it stands beside projections of their own, in whichever order. Those of one tensor are
bundles (`verifier.align.uses`), whatever is behind them; these are known by the attention they lead to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from verifier.align.assembly import Assembly, Piece
from verifier.align.sequence import longest_common_subsequence
from verifier.align.sharing import Roles, cuts
from verifier.align.uses import Held, source_of, turned_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.graph import Graph, Site

FUSED = "multi_head_attention_forward"
_IN = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_PROJECTING = ("linear", "addmm", "matmul", "conv")
_PROJECTED = 2  # dimensions of a weight that projects, not to count those of size 1
_MOST = 64  # ways that are tried


class Attention(NamedTuple):
    """The weights of the projections of one attention, query, key and value in turn, and the bias of each.

    `apart` says whether they project more than one tensor, `call` whether they are given to one call.
    """

    site: int
    weights: tuple[Held, ...]
    biases: Mapping[str, Held]
    heads: int
    apart: bool
    call: bool

    @property
    def rows(self) -> int:
        """How many features all projections give together."""
        return sum(each.shape[-1] if each.turned else each.shape[0] for each in self.weights)


def match_attentions(baseline: Graph, candidate: Graph) -> list[tuple[Mapping[str, Assembly], ...]]:
    """For each attention that is one call on one side at least, the ways to share out what is not a bundle there."""
    listed = [
        sorted([*_calls(graph), *_written(graph)], key=lambda each: each.site)
        for graph in (baseline, candidate)
    ]
    found: list[tuple[Mapping[str, Assembly], ...]] = []
    for i, j in longest_common_subsequence(*[[each.rows for each in side] for side in listed]):
        b, c = listed[0][i], listed[1][j]
        bundles = not (b.apart or c.apart) and not (b.call and c.call)
        if bundles or not (b.call or c.call) or (b.call and c.call and len(b.weights) == len(c.weights)):
            continue
        ways = [
            fitting
            for way in cuts(b.weights, c.weights, max(b.heads, c.heads))
            if (fitting := _with_biases(way, b, c, baseline, candidate))
        ]
        if ways:
            found.append(tuple(ways[:_MOST]))
    return found


def _calls(graph: Graph) -> Iterator[Attention]:
    """The calls that are given all of an attention."""
    for site in graph.comparable:
        if site.op != FUSED or site.output:
            continue
        held = {use.role: Held(use.name, use.shape, site.index) for use in site.tensors}
        together = held.get("in_proj_weight")
        weights = (together,) if together else tuple(held[role] for role in _IN if role in held)
        if len(weights) not in (1, len(_IN)):
            continue
        biases = _biases_of_call(graph, site, weights, held.get("in_proj_bias"))
        heads = int(str(site.attributes.get("num_heads", 1)))
        apart = len({source_of(graph, k) for k in site.inputs[:3]}) > 1
        yield Attention(site.index, weights, biases, heads, apart, call=True)


def _biases_of_call(
    graph: Graph, site: Site, weights: Sequence[Held], together: Held | None
) -> dict[str, Held]:
    """The bias of each weight; of three weights and one bias, each has its rows."""
    if together is not None:
        return {each.name: together for each in weights}
    made = [graph.sites[k] for k in site.inputs if k >= 0 and not graph.reads_inputs[k]]
    parts = [use for each in made if each.op == "cat" for use in each.tensors]
    if len(parts) != len(weights):
        return {}
    return {
        each.name: Held(use.name, use.shape, site.index) for each, use in zip(weights, parts, strict=True)
    }


def _written(graph: Graph) -> Iterator[Attention]:
    """Attentions by what is projected for them, in the order of execution."""
    roles = Roles(graph)
    found: dict[int, list[tuple[int, Held]]] = {}
    biases: dict[str, Held] = {}
    for site in graph.comparable:
        if not site.op.startswith(_PROJECTING):
            continue
        held = [Held(use.name, use.shape, site.index, turned_at(site, use.name)) for use in site.tensors]
        weights = [each for each in held if len(each.shape) >= _PROJECTED and {*each.shape[2:]} <= {1}]
        places = roles.places(site.index)
        if len(weights) != 1 or len({group for group, _ in places}) != 1:
            continue
        ((group, role), *_) = sorted(places)
        found.setdefault(group, []).append((role, weights[0]))
        vectors = [each for each in held if each not in weights] or _added(graph, site)
        if len(vectors) == 1:
            biases[weights[0].name] = vectors[0]
    for group, projections in sorted(found.items()):
        weights = [held for _, held in sorted(projections, key=lambda each: each[0])]
        if len(weights) == len({each.name for each in weights}):
            own = {each.name: biases[each.name] for each in weights if each.name in biases}
            apart = len({source_of(graph, each.site) for each in weights}) > 1
            heads = roles.heads(weights[0].site)
            yield Attention(group, tuple(weights), own, heads, apart, call=False)


def _added(graph: Graph, site: Site) -> list[Held]:
    """The vector that is added to a projection right behind it."""
    readers = [graph.sites[reader] for reader in graph.consumers[site.index]]
    return [
        Held(use.name, use.shape, reader.index)
        for reader in readers
        if reader.op == "add" and len(readers) == 1
        for use in reader.tensors
    ]


def _with_biases(
    way: Mapping[str, Assembly], b: Attention, c: Attention, baseline: Graph, candidate: Graph
) -> dict[str, Assembly]:
    """A way to share out the weights, with the biases shared out like them; empty where it does not fit."""
    made = dict(way)
    wanted: dict[str, list[Piece]] = {}
    for weight in c.weights:
        bias, assembly = c.biases.get(weight.name), way.get(weight.name)
        if bias is None or assembly is None:
            continue
        rows = [piece for each in assembly.pieces if (piece := _bias_rows(each, b)) is not None]
        if len(rows) == len(assembly.pieces):
            wanted.setdefault(bias.name, []).extend(rows)
    made.update({name: Assembly(tuple(pieces)) for name, pieces in wanted.items()})
    fitting = {
        name: each for name, each in made.items() if each.fits(baseline.tensors, candidate.tensors[name])
    }
    return fitting if way.keys() <= fitting.keys() else {}


def _bias_rows(piece: Piece, b: Attention) -> Piece | None:
    """The rows of a bias that belong to those of a weight; zeros where it has none and others do."""
    bias = b.biases.get(piece.name)
    weight = next(each for each in b.weights if each.name == piece.name)
    count = weight.shape[-1] if weight.turned else weight.shape[0]
    before = 0
    if bias is None:
        alike = [each for each in b.biases.values() if each.shape == (count,)]
        return Piece(alike[0].name, piece.start, piece.stop, none=True) if alike else None
    if bias.shape != (count,):  # one bias for several weights
        for each in b.weights:
            if each.name == piece.name:
                break
            before += each.shape[-1] if each.turned else each.shape[0]
        return Piece(bias.name, before + (piece.start or 0), before + (piece.stop or count))
    return Piece(bias.name, piece.start, piece.stop)
