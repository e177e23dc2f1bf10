"""Rows that are apart by the rounding of what one model keeps alone: told by the weights that it is rounded from."""

from __future__ import annotations

import math
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import torch

from verifier.bench.subject import SIDES
from verifier.diagnose.reruns import Scene, look_at
from verifier.diagnose.trials import settings_of
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.judge.excess import limit, within
from verifier.proof.scaled import scaled
from verifier.proof.stored import rounds_to
from verifier.proof.unrounded import linear_in, multiples, unrounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from verifier.bench.bench import Bench
    from verifier.bench.subject import Subject
    from verifier.diagnose import Tried
    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import Site
    from verifier.proof.stored import Exact
    from verifier.records import PairResult

# Beyond this relative error no rounding to float32 explains a row: six of them, a hundred times amplified.
LARGEST = 1e-4


def with_unrounded(bench: Bench, rows: Sequence[PairResult]) -> Subject:
    """The models with what their stored tensors are the roundings of, where that makes rows agree that do not.

    Args:
        bench: The two models on a few samples, in float64.
        rows: What was measured there, in forced passes too.

    Returns:
        The very subject of the bench where there is nothing of the kind.
    """
    found: dict[str, Exact] = {side: {} for side in SIDES}
    times: set[tuple[str, str]] = set()
    wanted = [row for row in rows if _slightly(row)]
    if not wanted:
        return bench.subject
    held = _held_by_both(bench)
    scenes = [Scene.of(bench.alignment, row, rows) for row in wanted]

    def look(
        k: int, baseline: Neighbourhood | None, candidate: Neighbourhood | None, right: Tensor, given: Tensor
    ) -> None:
        allowed = limit(wanted[k], intrinsic=True)
        for side, place, target in ((SIDES[1], candidate, right), (SIDES[0], baseline, given)):
            if place is None or place.site is None or place.call is None:
                continue
            other = baseline if side == SIDES[1] else candidate
            by_channel = None if other is None else scaled(place, other, target, allowed)
            if by_channel and held[side].isdisjoint(by_channel):
                times.update((side, name) for name in by_channel)
                found[side] |= by_channel
                return
            linear = linear_in(place.site, place.call)
            names = {use.role: use.name for use in place.site.tensors}
            if linear is None:
                continue
            known = {role for role, name in names.items() if name in held[side]}
            whole = bench.subject.masters.candidate if side == SIDES[0] else bench.subject.masters.baseline
            half = scenes[k].candidate if side == SIDES[0] else scenes[k].baseline
            others = [whole[use.name] for site in (*half.sites, half.site) if site for use in site.tensors]
            exact = multiples(linear, target, allowed, others, known=known)
            if exact is not None:
                times.update((side, names[role]) for role in exact)
            else:
                exact = unrounded(linear, target, allowed, known=known)
            if exact is not None:
                found[side] |= {names[role]: tensor for role, tensor in exact.items()}
                return

    look_at(bench.alignment, scenes, bench.lanes, look)
    for scene in scenes:
        _by_factor(bench, scene, found)
    return bench.subject.with_exact(found, times) if any(found.values()) else bench.subject


def folds(bench: Bench, rows: Sequence[PairResult]) -> set[int]:
    """Rows that agree on all inputs, since they do on some: one side has folded the other's norm into its product.

    Either multiplies what comes from one pair with rows of one matrix; what comes behind that is a number to multiply
    by and one to add, for each row, and both are known as exactly as the fold is stored (`Subject.multiples`).
    """
    return {
        row.index
        for row in rows
        if row.kind == "site"
        and (row.between_baseline or row.between_candidate)
        and _is_fold(bench, Scene.of(bench.alignment, row, rows))
    }


def _is_fold(bench: Bench, scene: Scene) -> bool:
    known, partner = bench.subject.multiples, bench.alignment.partner
    sources = [half.sites[0].operands for half in (scene.baseline, scene.candidate) if half.sites]
    if len(sources) < 2 or [
        each if each is None or each < 0 else partner.get(each) for each in sources[0]
    ] != [*sources[1]]:
        return False
    for side, one, two in (
        (SIDES[1], scene.candidate, scene.baseline),
        (SIDES[0], scene.baseline, scene.candidate),
    ):
        if len(one.sites) != 1 or len(two.sites) < 2:
            continue
        (whole,), product = one.sites, two.sites[0]
        chained = all(
            each.op == "batch_norm"
            and not each.attributes.get("training", False)
            and each.operands == (before.index,)
            for before, each in pairwise(two.sites)
        )
        if (
            chained
            and whole.op == product.op
            and _settings(whole, product) == _settings(product, whole)
            and whole.tensors
            and all((side, use.name) in known for use in whole.tensors)
        ):
            return True
    return False


def _by_factor(bench: Bench, scene: Scene, found: dict[str, Exact]) -> None:
    """Add what a region's weights are the roundings of where one model multiplies them by a number of the program."""
    masters = bench.subject.masters
    halves = scene.baseline, scene.candidate
    factors = {*chain.from_iterable(_factors(site) for half in halves for site in half.sites)}
    used = [{use.name for site in half.sites for use in site.tensors} for half in halves]
    for name, assembly in masters.assemblies.items():
        whole = assembly.whole
        if whole is None or name not in used[1] or whole not in used[0]:
            continue
        if whole in found[SIDES[0]] or name in found[SIDES[1]]:
            continue
        tensors = masters.baseline[whole], masters.candidate[name]
        if tensors[0].shape != tensors[1].shape or torch.equal(*tensors):
            continue
        for side, key, own, other in zip(SIDES, (whole, name), tensors, tensors[::-1], strict=True):
            exact = _multiplied(own, other, factors)
            if exact is not None:
                found[side][key] = exact
                break


def _multiplied(stored: Tensor, other: Tensor, factors: Iterable[float]) -> Tensor | None:
    """What `stored` is the rounding of, if that is `other` times one of some factors other than 1."""
    wide, times = stored.double(), other.double()
    power = float(times.square().sum())
    if not stored.is_floating_point() or not other.is_floating_point() or not power:
        return None
    ratio = float((wide * times).sum()) / power
    for factor in factors:
        if (
            factor != 1
            and abs(ratio - factor) <= SINGLE_ROUNDOFF * abs(factor)
            and rounds_to(times * factor, wide)
        ):
            return times * factor
    return None


def _factors(site: Site) -> Iterator[float]:
    """Numbers by which an operator may multiply, and those it may be split into: its own, and roots of sizes."""
    own = [value for value in site.attributes.values() if isinstance(value, int | float) and value]
    sizes = [site.shape[-1]] if site.shape else []
    for value in (*own, *sizes):
        if math.isfinite(value) and not isinstance(value, bool):
            yield from (
                value,
                1 / value,
                abs(value) ** 0.5,
                abs(value) ** -0.5,
                abs(value) ** 0.25,
                abs(value) ** -0.25,
            )


def _held_by_both(bench: Bench) -> dict[str, set[str]]:
    """Of each side the tensors that the other holds as well, to the bit: no rounding of them makes a difference."""
    masters = bench.subject.masters
    same = {
        name: assembly.whole
        for name, assembly in masters.assemblies.items()
        if assembly.whole is not None
        and torch.equal(masters.candidate[name].flatten(), masters.baseline[assembly.whole].flatten())
    }
    return dict(zip(SIDES, ({*same.values()}, {*same}), strict=True))


def only_rounded(bench: Bench, row: PairResult, tried: Tried) -> bool:
    """Whether a row parts on inputs that were not given by what its stored weights may be off by.

    What these are the rounding of is known as far as the given inputs tell, and on others to their roundoff.
    """
    if tried.excited is None or not tried.excited.error.within(_ROUNDINGS * SINGLE_ROUNDOFF):
        return False
    for side, name in zip(SIDES, (row.baseline, row.candidate), strict=True):
        site = bench.graph(side).by_name.get(name or "")
        if site is not None and any(use.name in bench.subject.exact.get(side, {}) for use in site.tensors):
            return True
    return False


def _settings(site: Site, other: Site) -> dict[str, object]:
    """The settings of a site, but for what one of two is given as tensors: a bias."""
    roles = {use.role for each in (site, other) for use in each.tensors}
    return {name: value for name, value in settings_of(site).items() if name not in roles}


# Six roundings of a weight, which a sum that cancels may leave eight times as large beside its result.
_ROUNDINGS = 48


def _slightly(row: PairResult) -> bool:
    """Whether a site is beyond its budget on identical inputs, by so little that rounding may explain it."""
    if row.kind != "site" or row.baseline is None or row.candidate is None or row.intrinsic is None:
        return False
    return not within(row.intrinsic, limit(row, intrinsic=True)) and row.intrinsic.within(LARGEST)
