"""Whether what is compared depends, in numbers, on a region of many operators that have no partners of their own.

Two models may spend ten operators and ten thousand on one function. What leaves such a region is compared, so it is
enough that this depends on all that the region is given. That is tried: each weight of the region, and each tensor
that enters it, is changed (by a hundredth, or turned round where that shows nothing) while all else that enters is
kept, and what leaves must change. Then what leaves is changed, and the pair that reads it must.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from verifier.errors import GraphDepartureError, ModelError
from verifier.judge import Region, many
from verifier.lockstep import overwrite

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.graph import Graph

# A change of a tensor, relative to its size, and how much of one must show where it is read: rounding is 1e-16.
_NUDGE = 1e-2
_SEEN = 1e-9
_MOST = 64  # runs of one model; what they leave out stays open
_GROUPS = 16  # of what is changed in one region, those of a group together

_INPUTS = "inputs of the model"  # changed like a weight, where a region has nothing else
_MATRIX = 2  # dimensions: what is added, as a bias is, may cancel (that of a key does in every softmax)


class _Try(NamedTuple):
    """What is changed together in a region, where that must show, and which sites keep what they gave before.

    `touches` is what no other try of the same run may touch.
    """

    region: Region
    changes: tuple[str | int, ...]
    seen: frozenset[int]
    held: frozenset[int]
    touches: frozenset[Region | int]


class _Run(NamedTuple):
    """What a run gave at the sites that were watched, and what of it could not be changed."""

    tensors: Mapping[int, Tensor]
    refused: Collection[str | int]


def read(bench: Bench, sides: Sequence[str] = ("baseline", "candidate")) -> dict[Region, bool]:
    """For each region of many operators, whether what is compared depends on all of it; without those left open.

    Args:
        bench: The two models and their pairs, on a few samples in float64.
        sides: Whose regions: those of models that can be run.
    """
    found: dict[Region, bool] = {}
    regions = many(bench.alignment)
    for side in sides:
        own = [region for region in regions if region.side == side]
        tries = [each for region in own for each in _tries(bench.graph(side), region, own)]
        watched = {site for each in tries for site in (*each.seen, *each.held)}
        rounds = _rounds(tries)
        before = _run(bench, side, watched, [], {}, _nudged) if tries else None
        if before is None:
            continue
        for together in rounds[:_MOST]:
            kept = {site: before.tensors[site] for each in together for site in each.held}
            left = together
            for change in (_nudged, _turned_round):  # what is chosen by comparing does not heed a nudge
                again = [left]
                while again:
                    tried = again.pop()
                    changes = [changed for each in tried for changed in each.changes]
                    after = _run(bench, side, watched, changes, kept, change) if tried else before
                    if after is None and len(tried) > 1:  # one of them sends it another way
                        again += [[each] for each in tried]
                        continue
                    left = [each for each in left if each not in tried or not _shown(each, before, after)]
            found.update(
                {each.region: found.get(each.region, True) and each not in left for each in together}
            )
        for each in (each for together in rounds[_MOST:] for each in together):
            if found.get(each.region):
                del found[each.region]
    return found


def _tries(graph: Graph, region: Region, regions: Sequence[Region]) -> Iterator[_Try]:
    inside = frozenset(region.sites)
    sources = {source for site in inside for source in graph.sites[site].inputs} - inside
    entries = frozenset(source for source in sources if source >= 0)
    exits = {
        site: frozenset(end for end in region.ends if site in graph.sites[end].inputs)
        for site in region.sites
    }
    leaving = frozenset(site for site, ends in exits.items() if ends or site in graph.outputs)
    matrices = [name for name in region.weights if sum(size > 1 for size in graph.tensors[name]) >= _MATRIX]
    factors: list[str | int] = [*matrices, *sorted(entries)]
    if not factors and min(sources, default=0) < 0:
        factors = [_INPUTS]
    for number in range(min(_GROUPS, len(factors))):
        changed = tuple(factors[number::_GROUPS])
        shared = [each for each in regions if not {*each.weights}.isdisjoint(changed)]
        touched: set[Region | int] = {region, *shared}
        touched.update(site for site in changed if isinstance(site, int))
        yield _Try(region, changed, leaving, entries, frozenset(touched))
    compared = [site for site in sorted(leaving) if site not in graph.outputs]
    for number in range(min(_GROUPS, len(compared))):
        out = tuple(compared[number::_GROUPS])
        ends = frozenset(end for site in out for end in exits[site])
        beside = {source for end in ends for source in graph.sites[end].inputs if source >= 0}
        yield _Try(
            region, out, ends, (entries | leaving | beside).difference(out), frozenset([region, *ends])
        )


def _rounds(tries: Sequence[_Try]) -> list[list[_Try]]:
    """Tries that can share a run, since none touches what another does."""
    rounds: list[list[_Try]] = []
    touched: list[set[Region | int]] = []
    first: dict[Region, int] = defaultdict(int)
    for each in tries:
        number = first[each.region]  # tries of one region never share a run
        while number < len(rounds) and not touched[number].isdisjoint(each.touches):
            number += 1
        if number == len(rounds):
            rounds.append([])
            touched.append(set())
        rounds[number].append(each)
        touched[number] |= each.touches
        first[each.region] = number + 1
    return rounds


def _run(
    bench: Bench,
    side: str,
    watched: Collection[int],
    changes: Sequence[str | int],
    kept: Mapping[int, Tensor],
    change: Callable[[Tensor], Tensor],
) -> _Run | None:
    """A run of one model with some things changed and some kept; None where it then goes another way."""
    inputs = bench.given(side)
    if _INPUTS in changes:
        args, kwargs = pytree.tree_map_only(Tensor, change, (inputs.args, inputs.kwargs))
        inputs = replace(inputs, args=args, kwargs=kwargs)
    masters = bench.subject.masters
    made = {
        name: change(bench.masters(side)[name])
        for name in changes
        if isinstance(name, str) and name != _INPUTS
    }
    merged = {**bench.masters(side), **made}
    masters = replace(masters, baseline=merged) if side == "baseline" else replace(masters, candidate=merged)
    changed = bench.at(subject=replace(bench.subject, masters=masters))
    stops = {*watched, *(site for site in changes if isinstance(site, int))}
    lane = changed.lane(side, inputs=inputs, stops=stops)
    found: dict[int, Tensor] = {}
    refused: list[str | int] = []
    try:
        while (site := lane.advance()) is not None:
            tensor = lane.tensor
            if tensor is None:
                continue
            found[site] = tensor.clone()
            if site in changes:
                if not overwrite(tensor, change(tensor), lane):
                    refused.append(site)
            elif site in kept and kept[site].shape == tensor.shape:
                overwrite(tensor, kept[site], lane)
    except (GraphDepartureError, ModelError):  # which way it goes depends on what was changed
        return None
    finally:
        lane.close()
    return _Run(found, refused)


def _shown(each: _Try, before: _Run, after: _Run | None) -> bool:
    """Whether a change showed; what could not be changed is not held against a region."""
    if after is None or any(change in after.refused for change in each.changes):
        return True
    return any(_moved(before.tensors[site], after.tensors[site]) for site in each.seen)


def _moved(before: Tensor, after: Tensor) -> bool:
    if before.shape != after.shape or not before.numel():
        return True
    if not (before.is_floating_point() or before.is_complex()):
        return not torch.equal(before, after)
    finite = before.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return True
    before, after = before[finite], after[finite]
    return bool((before - after).norm() > _SEEN * before.norm())


def _nudged(tensor: Tensor) -> Tensor:
    """A tensor a little changed; truths turned round, whole numbers moved on by one place."""
    if tensor.dtype == torch.bool:
        return ~tensor
    if not tensor.is_floating_point():
        return tensor.flatten().roll(1).reshape(tensor.shape)
    finite = tensor[tensor.isfinite()].double()
    size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return tensor + (_NUDGE * (size or 1.0) * noise).to(tensor.device, tensor.dtype)


def _turned_round(tensor: Tensor) -> Tensor:
    """The same numbers from the last to the first."""
    return ~tensor if tensor.dtype == torch.bool else tensor.flatten().flip(0).reshape(tensor.shape)
