"""All faults of a candidate, one after the other: each is put right before the next one is looked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verifier.records import UNEXPLAINED, Cause
from verifier.sharded.aligning import wide
from verifier.sharded.case import Blame, Case
from verifier.sharded.causes import explained
from verifier.sharded.comparing import Found, refuted, without
from verifier.sharded.placing import Placement, cut
from verifier.sharded.watching import GIVEN, STATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.comparing import Bench
    from verifier.sharded.parameters import Spread
    from verifier.sharded.watching import Key

_MOST = 12  # faults that are put right


@dataclass
class Faults:
    """What a cell's passes have shown: the sites as they are, those that are at fault, and the sites put right.

    `forced` are the sites of the last pass, in which every site at fault but the last ones was overwritten;
    `further` says that the sites behind the last fault could not be put right, so that nothing is known of them.
    """

    free: list[Found] = field(default_factory=list)
    blamed: dict[Key, Blame] = field(default_factory=dict)
    forced: dict[Key, Found] = field(default_factory=dict)
    unpaired: set[Key] = field(default_factory=set)
    further: bool = False

    def behind(self, site: Found) -> Key | None:
        """The site at fault that explains one: itself, or of what a module has left in a buffer the module."""
        if site.key in self.blamed or site.event.op != STATE:
            return site.key if site.key in self.blamed else None
        scopes = {key.scope: key for key in self.blamed if not key.returned}
        around = site.key.scope
        while around not in scopes and around:
            around = around.rpartition(".")[0]
        return scopes.get(around)


def found_in(
    bench: Bench,
    spreads: Mapping[str, Spread],
    parameters: Mapping[str, Tensor],
    draws: Mapping[Key, Cause],
    known: Mapping[Key, Placement] | None = None,
    *,
    forcing: bool = True,
) -> Faults:
    """Compare every site, explain the first that diverges, put it right, and so on."""
    sites = list(bench.sites(known))
    found = Faults(unpaired=refuted(sites))
    sites = found.free = without(sites, found.unpaired)
    for key, cause in draws.items():
        alike = cause.code == "shard-seed-differs"
        right = Placement("replica") if alike else None
        found.blamed[key] = Blame(key, cause, right, harmless=not alike)
    if forcing and any(each.placed for each in found.blamed.values()):
        sites = without(_put_right(bench, found.blamed) or sites, found.unpaired)
    while True:
        found.forced = {each.key: each for each in sites}
        wrong = next((each for each in sites if each.wrong and found.behind(each) is None), None)
        if wrong is None or len(found.blamed) > _MOST:
            break
        blame = explained(_case(bench, wrong, found.forced, spreads, parameters))
        if wrong.event.op == STATE:
            blame = replace(blame, placed=None, harmless=True)
        if not forcing:
            found.blamed[blame.key] = blame
            found.forced = {}
            break
        trial = _put_right(bench, {**found.blamed, blame.key: blame})
        if trial is not None and blame.on_trial:
            again = next((each for each in trial if each.key == wrong.key), None)
            if again is None or again.wrong:  # it is not what it reads
                blame = Blame(wrong.key, _unexplained(blame), None)
                trial = _put_right(bench, {**found.blamed, blame.key: blame})
        found.blamed[blame.key] = blame
        if trial is None:
            found.further = True
            break
        sites = without(trial, found.unpaired | refuted(trial))
    return found


def _case(
    bench: Bench,
    wrong: Found,
    sites: Mapping[Key, Found],
    spreads: Mapping[str, Spread],
    parameters: Mapping[str, Tensor],
) -> Case:
    return Case(bench, wrong, wide(wrong.event.value), bench.pieces(wrong.key), sites, spreads, parameters)


def _unexplained(blame: Blame) -> Cause:
    return Cause(
        code=UNEXPLAINED,
        summary="no way of joining what the ranks have gives the baseline's tensor",
        confirmed=False,
        evidence=(f"it still differs where this is mended: {blame.cause.summary}",),
        remedy="compare what each rank computes there with the baseline's operator",
    )


def _put_right(bench: Bench, blamed: Mapping[Key, Blame]) -> Sequence[Found] | None:
    """The sites of a pass in which those at fault are overwritten by the baseline's; None where that cannot be."""
    instead: dict[Key, list[Tensor | None]] = {}
    count = len(next(iter(bench.aligned.parts.values())))
    for key, blame in blamed.items():
        if blame.placed is None:
            if blame.harmless:
                continue
            return None
        parts = bench.aligned.parts.get(blame.given or key)
        if parts is None:  # an output: nothing lies behind it
            continue
        owners = [(rank, own) for rank, each in enumerate(parts) for own in each]
        event = bench.baseline.events[blame.given or key]
        right = event.value if blame.given is None else event.given
        values = [] if right is None else cut(blame.placed, wide(right), len(owners))
        if len(values) != len(owners):
            return None
        for (rank, own), value in zip(owners, values, strict=True):
            there = own if blame.given is None else own._replace(op=GIVEN)
            instead.setdefault(there, [None] * count)[rank] = value
    if not instead:
        return list(bench.sites())
    bench.crew.ask("run", instead)
    return list(bench.sites())
