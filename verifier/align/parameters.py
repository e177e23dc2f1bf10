"""Mapping the candidate's parameters and buffers to the baseline's, by the sites that use them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from verifier.align.assembly import Assembly

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from verifier.graph import Graph, Site


def map_parameters(
    baseline: Graph,
    candidate: Graph,
    pairs: Iterable[tuple[int, int]],
    known: Mapping[str, Assembly] | None = None,
) -> dict[str, Assembly]:
    """How to make each candidate tensor that can be mapped from the baseline's.

    Tensors used at paired sites in the same role with the same shape belong together; a tensor used at several
    sites goes with the majority, and no baseline tensor is given away twice unless it is used so. What is `known`
    comes next. Tensors that no site uses (a batch norm's step counter in eval mode) follow their neighbours in the
    same module; what is left goes by its name, if the other model has a free tensor of that name and shape.
    """
    mapped = _voted(baseline, candidate, pairs)
    given = {name for assembly in mapped.values() for name in assembly.names}
    for name, assembly in (known or {}).items():
        if name not in mapped and given.isdisjoint(assembly.names):
            mapped[name] = assembly
    given |= {name for assembly in mapped.values() for name in assembly.names}
    owners: dict[str, Counter[str]] = defaultdict(Counter)
    for name, assembly in mapped.items():
        for source in assembly.names:
            owners[_owner(name)][_owner(source)] += 1
    for name, shape in candidate.tensors.items():
        if name in mapped or not owners[_owner(name)]:
            continue
        owner = owners[_owner(name)].most_common(1)[0][0]
        leaf = name.rpartition(".")[2]
        twin = f"{owner}.{leaf}" if owner else leaf
        if twin not in given and baseline.tensors.get(twin) == shape:
            mapped[name] = Assembly.of(twin)
            given.add(twin)
    for name, shape in candidate.tensors.items():  # what no paired site uses still has a name
        if name not in mapped and name not in given and baseline.tensors.get(name) == shape:
            mapped[name] = Assembly.of(name)
    return {name: mapped[name] for name in candidate.tensors if name in mapped}


def _voted(baseline: Graph, candidate: Graph, pairs: Iterable[tuple[int, int]]) -> dict[str, Assembly]:
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for b, c in pairs:
        twins = dict(zip(_parts(baseline.sites[b]), baseline.sites[b].tensors, strict=True))
        for part, use in zip(_parts(candidate.sites[c]), candidate.sites[c].tensors, strict=True):
            if part in twins:
                votes[use.name][twins[part].name] += 1
    return {name: Assembly.of(counts.most_common(1)[0][0]) for name, counts in votes.items()}


def _parts(site: Site) -> list[Hashable]:
    """What each tensor of a site is: its role, its shape, and which it is of those that share both."""
    seen: Counter[Hashable] = Counter()
    found: list[Hashable] = []
    for use in site.tensors:
        found.append((use.role, use.shape, seen[use.role, use.shape]))
        seen[use.role, use.shape] += 1
    return found


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
