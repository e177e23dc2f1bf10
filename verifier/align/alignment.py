"""The outcome of an alignment: which sites compute the same thing, and which tensors they use for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from verifier.align.assembly import Assembly
    from verifier.align.layouts import Layout
    from verifier.graph import Graph


class Pair(NamedTuple):
    """Indices of a baseline site and of the candidate site that computes the same thing."""

    baseline: int
    candidate: int


class State(NamedTuple):
    """A parameter or buffer that a forward pass of either model writes: its name in both.

    `pair` is the pair, by position, whose sites use it; None where no pair does.
    """

    baseline: str
    candidate: str
    pair: int | None


class Unmatched(NamedTuple):
    """A site without a partner: `side` is `baseline` or `candidate`, `site` its index there."""

    side: str
    site: int
    reason: str


@dataclass(frozen=True)
class Alignment:
    """A claim about two graphs, still to be proved by numbers.

    Attributes:
        baseline: Graph of the baseline.
        candidate: Graph of the candidate.
        pairs: The pairs, in the baseline's order of execution.
        unmatched: Comparable sites of either graph without a partner.
        parameters: For each candidate tensor that could be mapped, how it is made from the baseline's.
        layouts: For pairs whose tensors are laid out in two ways, how the candidate's comes from the baseline's.
        rebuilt: Whether the two graphs are built from different operators: numbers should settle the pairs then, and
            layouts may differ.
        unread: Pairs that differ, as numbers have shown, only in what nothing behind them reads.
        choices: Places where several assemblies are possible and the first is a guess, with all of them.
    """

    baseline: Graph
    candidate: Graph
    pairs: tuple[Pair, ...]
    unmatched: tuple[Unmatched, ...] = ()
    parameters: Mapping[str, Assembly] = field(default_factory=dict)
    layouts: Mapping[Pair, Layout] = field(default_factory=dict)
    choices: tuple[tuple[Mapping[str, Assembly], ...], ...] = ()
    rebuilt: bool = False
    unread: frozenset[Pair] = frozenset()

    @cached_property
    def partner(self) -> dict[int, int]:
        """Candidate site for each paired baseline site."""
        return dict(self.pairs)

    @cached_property
    def partner_back(self) -> dict[int, int]:
        """Baseline site for each paired candidate site."""
        return {candidate: baseline for baseline, candidate in self.pairs}

    @cached_property
    def laid_out(self) -> dict[int, Layout]:
        """Layouts by the position of their pair."""
        return {k: self.layouts[pair] for k, pair in enumerate(self.pairs) if pair in self.layouts}

    @cached_property
    def same_outputs(self) -> tuple[bool, ...]:
        """For each output the two models share by position: whether a pair makes it on both sides, laid out alike."""
        return tuple(
            self.partner.get(b) == c and Pair(b, c) not in self.layouts if b >= 0 else b == c
            for b, c in zip(self.baseline.outputs, self.candidate.outputs, strict=False)
        )

    def with_given(self, given: Mapping[str, Assembly | None]) -> Alignment:
        """The same claim, where some of the candidate's tensors are known: their assemblies, None for not mapped."""
        merged = {**self.parameters, **given}
        return replace(
            self,
            parameters={name: assembly for name, assembly in merged.items() if assembly is not None},
            choices=tuple(choice for choice in self.choices if given.keys().isdisjoint(choice[0])),
        )

    def settled(self, pairs: Iterable[Pair], layouts: Mapping[Pair, Layout], reason: str) -> Alignment:
        """The same claim with other pairs and layouts; sites that lost their partner are unmatched for `reason`."""
        kept = tuple(sorted(pairs))
        paired = {pair.baseline for pair in kept}, {pair.candidate for pair in kept}
        reasons = {(each.side, each.site): each.reason for each in self.unmatched}
        unmatched = tuple(
            Unmatched(side, site.index, reasons.get((side, site.index), reason))
            for side, graph, used in zip(
                ("baseline", "candidate"), (self.baseline, self.candidate), paired, strict=True
            )
            for site in graph.comparable
            if site.index not in used
        )
        return replace(self, pairs=kept, unmatched=unmatched, layouts=layouts)

    def repaired(self, wrong: Collection[Pair], right: Collection[Pair], reason: str) -> Alignment:
        """The same claim with `right` pairs in place of `wrong` ones; sites left alone are unmatched for `reason`."""
        pairs = tuple(sorted({*(pair for pair in self.pairs if pair not in wrong), *right}))
        paired = {pair.baseline for pair in pairs}, {pair.candidate for pair in pairs}
        lost = [
            Unmatched(side, site, reason)
            for pair in wrong
            for side, site, used in (
                ("baseline", pair.baseline, paired[0]),
                ("candidate", pair.candidate, paired[1]),
            )
            if site not in used
        ]
        kept = [each for each in self.unmatched if each.site not in paired[each.side != "baseline"]]
        return replace(self, pairs=pairs, unmatched=(*kept, *lost))

    def states(self, parameters: Mapping[str, str]) -> tuple[State, ...]:
        """What either model writes while it runs, with `parameters` saying which tensor is which."""
        users: dict[str, int] = {}
        for number, pair in enumerate(self.pairs):
            for use in self.baseline.sites[pair.baseline].tensors:
                users.setdefault(use.name, number)
                users.setdefault(_owner(use.name), number)  # a step counter is used by nothing
        return tuple(
            State(twin, name, users.get(twin, users.get(_owner(twin))))
            for name, twin in parameters.items()
            if name in self.candidate.writes_state or twin in self.baseline.writes_state
        )


def _owner(name: str) -> str:
    return name.rpartition(".")[0] + "."
