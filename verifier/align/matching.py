"""Pairing the sites of two graphs.

From certain to plausible: sites whose whole context is equal, then equal upstream, then equal downstream (first
with hyperparameters, then without), so that one fault leaves everything above it and below it paired; what
remains between two faults is paired in a canonical order of the dataflow. Names are never looked at.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from verifier.align.alignment import Alignment, Pair, Unmatched
from verifier.align.parameters import map_parameters
from verifier.align.sequence import longest_common_subsequence
from verifier.align.signatures import (
    Contexts,
    Interner,
    canonical_order,
    loose,
    operator_class,
    strict,
    valued,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from verifier.graph import Graph, Site


def align(
    baseline: Graph,
    candidate: Graph,
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] | None = None,
) -> Alignment:
    """Pair the sites of two graphs that compute the same thing, and map the tensors they use.

    Works on structure alone: operators, shapes, hyperparameters and dataflow. Dead and identity sites take no
    part. Time is near linear in the number of sites, but for the stretch between the first and the last
    difference, where it is quadratic with a very small constant.

    Args:
        baseline: Graph of the baseline.
        candidate: Graph of the candidate.
        values: For each model, what tells its tensors apart by value, by name. Where two models hold the same
            tensors, those say which of several equal places a site stands in.
    """
    matcher = _Matcher(baseline, candidate)
    describers: list[tuple[Callable[[Site], Hashable], Callable[[Site], Hashable]]] = [
        (strict, strict),
        (loose, loose),
    ]
    if values is not None:
        ours, theirs = values
        describers.insert(0, (lambda site: valued(site, ours), lambda site: valued(site, theirs)))
    for describers_of in describers:
        number = Interner()
        b, c = (
            Contexts(graph, [describe(site) for site in graph.sites], number)
            for graph, describe in zip((baseline, candidate), describers_of, strict=True)
        )
        matcher.by_key(
            list(zip(b.forward, b.backward, strict=True)), list(zip(c.forward, c.backward, strict=True))
        )
        matcher.by_key(b.forward, c.forward)
        matcher.by_key(b.backward, c.backward)
    # Parameters and joins say more about a place than an activation does, so they choose first.
    matcher.in_order(loose, lambda site: bool(site.tensors) or len(set(site.inputs)) > 1)
    matcher.in_order(loose, lambda _: True)
    matcher.replaced()
    matcher.in_order(operator_class, lambda _: True)
    pairs = tuple(sorted(Pair(b, c) for b, c in matcher.partner.items()))
    return Alignment(
        baseline,
        candidate,
        pairs,
        matcher.unmatched(),
        map_parameters(baseline, candidate, pairs),
    )


def _place(graph: Graph, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where a site stands: what it reads, and which sites read it."""
    return tuple(dict.fromkeys(graph.sites[index].inputs)), tuple(sorted(graph.consumers[index]))


class _Matcher:
    def __init__(self, baseline: Graph, candidate: Graph) -> None:
        self.baseline = baseline
        self.candidate = candidate
        self.partner: dict[int, int] = {}
        self.taken: set[int] = set()

    def _pair(self, b: int, c: int) -> None:
        self.partner[b] = c
        self.taken.add(c)

    def _open(self) -> tuple[list[int], list[int]]:
        return (
            [site.index for site in self.baseline.comparable if site.index not in self.partner],
            [site.index for site in self.candidate.comparable if site.index not in self.taken],
        )

    def by_key(self, keys_b: Sequence[Hashable], keys_c: Sequence[Hashable]) -> None:
        """Pair open sites with equal keys, in order of execution where several share one.

        A key that more sites have on one side than on the other says which sites are alike, not which belong
        together; those are left to the next rule.
        """
        groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        open_b, open_c = self._open()
        for b in open_b:
            groups[keys_b[b]][0].append(b)
        for c in open_c:
            groups[keys_c[c]][1].append(c)
        for of_baseline, of_candidate in groups.values():
            if len(of_baseline) == len(of_candidate):
                for b, c in zip(of_baseline, of_candidate, strict=True):
                    self._pair(b, c)

    def in_order(self, describe: Callable[[Site], Hashable], chosen: Callable[[Site], bool]) -> None:
        """Pair chosen sites that are left in the canonical order, between neighbours that are paired already."""
        order_b, order_c = canonical_order(self.baseline), canonical_order(self.candidate)
        back = {c: b for b, c in self.partner.items()}
        anchors = longest_common_subsequence(
            [b if b in self.partner else None for b in order_b],
            [back.get(c, ()) for c in order_c],
        )
        previous = (-1, -1)
        for i, j in [*anchors, (len(order_b), len(order_c))]:
            gap_b = [
                b
                for b in order_b[previous[0] + 1 : i]
                if b not in self.partner and chosen(self.baseline.sites[b])
            ]
            gap_c = [
                c
                for c in order_c[previous[1] + 1 : j]
                if c not in self.taken and chosen(self.candidate.sites[c])
            ]
            previous = (i, j)
            if gap_b and gap_c:
                self._gap(gap_b, gap_c, describe)

    def _gap(self, gap_b: Sequence[int], gap_c: Sequence[int], describe: Callable[[Site], Hashable]) -> None:
        found = longest_common_subsequence(
            [describe(self.baseline.sites[b]) for b in gap_b],
            [describe(self.candidate.sites[c]) for c in gap_c],
        )
        for i, j in found:
            self._pair(gap_b[i], gap_c[j])

    def replaced(self) -> None:
        """Pair what stands alone between paired neighbours on both sides: one operator in place of another."""
        open_b, open_c = self._open()
        places: dict[Hashable, list[int]] = defaultdict(list)
        for c in open_c:
            places[_place(self.candidate, c)].append(c)
        for b in open_b:
            inputs, readers = _place(self.baseline, b)
            here = (
                tuple(self.partner.get(source, -1 - len(self.candidate.sites)) if source >= 0 else source
                      for source in inputs),
                tuple(sorted(self.partner.get(reader, -1) for reader in readers)),
            )  # fmt: skip
            if len(places[here]) == 1:
                self._pair(b, places[here].pop())

    def unmatched(self) -> tuple[Unmatched, ...]:
        open_b, open_c = self._open()
        return tuple(
            Unmatched(side, index, f"the {other} has no {graph.sites[index].op} at this place")
            for side, other, graph, indices in (
                ("baseline", "candidate", self.baseline, open_b),
                ("candidate", "baseline", self.candidate, open_c),
            )
            for index in indices
        )
