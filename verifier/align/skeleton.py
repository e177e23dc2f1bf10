"""Pairing where two models use their parameters, whatever operators they build the rest from.

Two implementations of one function may agree in no operator but those that hold weights: attention in one call or
in twelve, three projections or one, a norm in one operator or in five. What they share is the sequence in which
the dataflow meets the weights. So the uses of tensors are matched, as a sequence of sizes, rather than sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.align.assembly import Assembly
from verifier.align.attention import match_attentions
from verifier.align.gates import match_recurrences
from verifier.align.layouts import layouts
from verifier.align.sequence import longest_common_subsequence
from verifier.align.sharing import Roles, assembly_of, shared_out
from verifier.align.uses import Use, uses_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

    from verifier.graph import Graph

# The sites on the candidate's side, and the assemblies that are possible there.
_Choice = tuple[frozenset[int], list[dict[str, Assembly]]]


@dataclass(frozen=True)
class Skeleton:
    """What the skeletons of two graphs have in common.

    Attributes:
        pairs: Pairs of sites that give the same thing behind the same tensors.
        assemblies: For each candidate tensor that was matched, how it is made from the baseline's.
        choices: For each bundle that was matched by a guess, the other assemblies that are possible.
    """

    pairs: tuple[tuple[int, int], ...]
    assemblies: Mapping[str, Assembly]
    choices: tuple[tuple[Mapping[str, Assembly], ...], ...] = ()


def match_skeletons(
    baseline: Graph,
    candidate: Graph,
    partner: Mapping[int, int],
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]],
) -> Skeleton:
    """Match the uses of tensors in two graphs.

    Args:
        baseline: Graph of the baseline.
        candidate: Graph of the candidate.
        partner: Candidate site for each baseline site that is paired already.
        values: For each model, what tells its tensors apart by value, by name.
    """
    known = [*match_recurrences(baseline, candidate), *match_attentions(baseline, candidate)]
    shared = {name: made for ways in known for name, made in ways[0].items()}
    b_uses = uses_of(baseline, {name for made in shared.values() for name in made.names})
    c_uses = uses_of(candidate, shared.keys())
    back = {c: b for b, c in partner.items()}
    matched = _matched(b_uses, c_uses, partner, back)
    assemblies = {**shared}
    choices: list[_Choice] = []
    sites: dict[int, list[int]] = {}
    roles = Roles(baseline), Roles(candidate)
    for i, j in matched:
        if len(b_uses[i].members) == len(c_uses[j].members) == 1:
            b, c = b_uses[i].members[0], c_uses[j].members[0]
            assemblies.setdefault(c.name, assembly_of((b,), turned=c.turned))
            sites.setdefault(b.site, []).append(c.site)
            continue
        members, found = shared_out(b_uses[i], c_uses[j], roles, values)
        if not found:
            continue
        for name, assembly in found[0].items():
            assemblies.setdefault(name, assembly)
        choices.append((frozenset(each.site for each in c_uses[j].members), found))
        for b_site, c_site in members:
            sites.setdefault(b_site, []).append(c_site)
    more = [ways for ways in known if len(ways) > 1]
    return Skeleton(tuple(_last(sites, baseline, candidate)), assemblies, (*_grouped(choices), *more))


def _matched(
    b_uses: Sequence[Use], c_uses: Sequence[Use], partner: Mapping[int, int], back: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Positions of uses that belong together: by size and part, then between those by size alone, then elsewhere."""

    def keys(uses: Sequence[Use], paired: Mapping[int, int], *, baseline: bool, part: bool) -> list[Hashable]:
        found: list[Hashable] = []
        for use in uses:
            site = use.members[0].site
            if len(use.members) == 1 and site in paired:
                found.append(("pair", site if baseline else paired[site], use.size, use.part))
            else:
                found.append((use.size, use.part if part else ""))
        return found

    found = longest_common_subsequence(
        keys(b_uses, partner, baseline=True, part=True), keys(c_uses, back, baseline=False, part=True)
    )
    loose_b = keys(b_uses, partner, baseline=True, part=False)
    loose_c = keys(c_uses, back, baseline=False, part=False)
    more: list[tuple[int, int]] = []
    previous = (-1, -1)
    for i, j in [*found, (len(b_uses), len(c_uses))]:
        gap_b, gap_c = range(previous[0] + 1, i), range(previous[1] + 1, j)
        previous = (i, j)
        if gap_b and gap_c:
            here = longest_common_subsequence([loose_b[k] for k in gap_b], [loose_c[k] for k in gap_c])
            more.extend((gap_b[a], gap_c[b]) for a, b in here)
    found = [*found, *more]
    return sorted([*found, *_moved(b_uses, c_uses, found)])


def _moved(
    b_uses: Sequence[Use], c_uses: Sequence[Use], found: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Weights of a size that is left on both sides as often, in order, each with what follows it: a wire moved."""
    left = [_with_followers(uses, {pair[k] for pair in found}) for k, uses in enumerate((b_uses, c_uses))]
    for size in left[0].keys() & left[1].keys():
        if len(left[0][size]) != len(left[1][size]):
            continue
        for one, other in zip(left[0][size], left[1][size], strict=True):
            keys = [
                [(uses[k].size, uses[k].part) for k in run] for uses, run in ((b_uses, one), (c_uses, other))
            ]
            for i, j in longest_common_subsequence(*keys):
                yield one[i], other[j]


def _with_followers(uses: Sequence[Use], taken: Collection[int]) -> dict[Hashable, list[list[int]]]:
    """The weights of products that are left, by size, each with the uses up to the next one."""
    found: dict[Hashable, list[list[int]]] = {}
    run: list[int] | None = None
    for k, use in enumerate(uses):
        if isinstance(use.size, tuple):
            run = None if k in taken else [k]
            if run is not None:
                found.setdefault(use.size, []).append(run)
        elif run is not None and k not in taken:
            run.append(k)
    return found


def _last(sites: Mapping[int, Sequence[int]], baseline: Graph, candidate: Graph) -> Iterator[tuple[int, int]]:
    """Pairs of sites behind the same tensors, the last where one side has several, if they can give one tensor."""
    chosen: dict[int, int] = {}
    for b in sorted(sites):
        chosen[max(sites[b])] = b  # a later site of the baseline takes an earlier one's place
    for c, b in chosen.items():
        if next(layouts(baseline.sites[b].shape, candidate.sites[c].shape), None) is not None:
            yield b, c


def _grouped(choices: Sequence[_Choice]) -> list[tuple[Mapping[str, Assembly], ...]]:
    """Alternatives at one place, weights and biases together."""
    found: dict[frozenset[int], list[dict[str, Assembly]]] = {}
    for sites, assemblies in choices:
        here = found.setdefault(sites, [{} for _ in assemblies])
        if len(here) == len(assemblies):
            for merged, assembly in zip(here, assemblies, strict=True):
                merged.update(assembly)
    return [tuple(each) for each in found.values() if len(each) > 1]
