"""Both models with other numbers where a tensor holds but one number, or 0 and 1: these hide what they multiply.

A projection that starts at 0 or a gate that is shut makes a region of operators without partners agree whatever it
computes. What is the same program gives the same with other numbers there as well.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.errors import GraphDepartureError, ModelError
from verifier.judge import regions
from verifier.lockstep import Comparing, Plan, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.align import Assembly
    from verifier.bench.bench import Bench
    from verifier.judge import Region
    from verifier.lockstep import Meeting

SIDES = ("baseline", "candidate")
SAME = 1e-9
"""Relative to a tensor's size: what is closer than this is no difference in float64."""


class Excited(NamedTuple):
    """The two models with other numbers, and which of the baseline's tensors have them."""

    bench: Bench
    names: frozenset[str]


def excited(bench: Bench) -> Excited | None:
    """The two models with other numbers in what hides; None where nothing does.

    A tensor stays as it is unless both models read it, and the candidate has all that it makes of it from there.
    """
    before = None
    for draw in _DRAWS:  # of some numbers a root or a logarithm is taken
        found = _excited(bench, draw)
        if found is None:
            return None
        before = before or _finite(bench)
        if _alike(before, _finite(found.bench)):
            return found
    return None


class _Draw(NamedTuple):
    """How other numbers are made: in the place of zeros of both signs, and of a constant near that."""

    signed: bool
    near: bool


_DRAWS = [_Draw(signed, near) for near in (False, True) for signed in (True, False)]


def _finite(bench: Bench) -> list[Tensor] | None:
    """Where the baseline returns numbers; None where it goes another way."""
    try:
        passes = run([bench.lane(SIDES[0], stops=())], Plan([[]], []))
    except (GraphDepartureError, ModelError):
        return None
    return [value.isfinite() for value in passes.values[0]]


def _alike(one: Sequence[Tensor] | None, other: Sequence[Tensor] | None) -> bool:
    return one is not None and other is not None and all(map(torch.equal, one, other))


def _excited(bench: Bench, draw: _Draw) -> Excited | None:
    masters = bench.subject.masters
    read, other = (
        {use.name for site in bench.graph(side).sites for use in site.tensors}
        - {*bench.subject.exact.get(side, {})}
        for side in SIDES
    )
    drawn = {
        name: changed
        for name, tensor in masters.baseline.items()
        if name in read and (changed := _changed(tensor, draw)) is not None
    }
    made = {
        name: assembly
        for name, assembly in masters.assemblies.items()
        if not drawn.keys().isdisjoint(assembly.names)
    }
    taken = {name for name in made if name in other and _is_made(name, made[name], bench)}
    kept = {each for name in made.keys() - taken for each in made[name].names}
    names = {each for name in taken for each in made[name].names} & drawn.keys() - kept
    if not names:
        return None
    baseline = {**masters.baseline, **{name: drawn[name] for name in names}}
    candidate = {name: made[name].stored(baseline, masters.candidate[name]) for name in taken}
    other_masters = replace(masters, baseline=baseline, candidate={**masters.candidate, **candidate})
    return Excited(bench.at(subject=replace(bench.subject, masters=other_masters)), frozenset(names))


def _is_made(name: str, assembly: Assembly, bench: Bench) -> bool:
    masters = bench.subject.masters
    own = masters.candidate[name]
    return torch.equal(assembly.stored(masters.baseline, own), own)


def _changed(tensor: Tensor, draw: _Draw) -> Tensor | None:
    """Other numbers of the usual size for what is all one number, in another order what is 0 and 1."""
    if not tensor.is_floating_point() or not tensor.numel() or not bool(tensor.isfinite().all()):
        return None
    low, high = (float(each) for each in tensor.aminmax())
    if abs(low) >= _MASK:
        return None
    if low != high:
        if bool(((tensor == 0) | (tensor == 1)).all()):
            return tensor.flatten().roll(1).reshape(tensor.shape)
        return None
    generator = torch.Generator().manual_seed(0)  # the same for all: tensors that are tied stay so
    noise = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    if low:
        return (low * noise if draw.near else noise).to(tensor)
    signs = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).sign()
    signs = signs if draw.signed else signs.abs()
    terms = tensor[0].numel() if tensor.dim() > 1 else 1
    return (signs * noise / math.sqrt(terms)).to(tensor)


_MASK = 1e3  # what a softmax or a sigmoid makes 0 of: no gate that a training might open


def hidden(bench: Bench) -> Mapping[Region, bool]:
    """For each region without partners, whether what it leads to agrees on an excited bench.

    All do where the outputs agree, whatever was paired. Empty where there are none, or a model then goes another way.
    """
    alignment = bench.alignment
    found = regions(alignment)
    if not found:
        return {}
    # What stored weights are the rounding of is known as far as the given inputs tell, on others to their roundoff.
    same = _ROUNDED if any(bench.subject.exact.values()) else SAME
    lanes = [bench.lane(side, stops=()) for side in SIDES]
    try:
        free = run(lanes, Plan([[], []], [Comparing(0, 1)])).outputs[0]
        if all(_agree(met, same) for met in free) and len(bench.graph(SIDES[0]).outputs) == len(
            bench.graph(SIDES[1]).outputs
        ):
            return dict.fromkeys(found, True)
        passes = run(
            [bench.lane(side) for side in SIDES],
            Plan(
                [bench.paired_sites(side) for side in SIDES],
                [Comparing(0, 1, force=True)],
                layouts=alignment.laid_out,
            ),
        )
    except (GraphDepartureError, ModelError):
        return {}
    if passes.lost:
        return {}
    apart = {
        (side, site)
        for k, side in enumerate(SIDES)
        for met, sites in (
            (passes.meetings[0], [pair[k] for pair in alignment.pairs]),
            (passes.outputs[0], bench.graph(side).outputs),
        )
        for meeting, site in zip(met, sites, strict=False)
        if not _agree(meeting, same)
    }
    return {
        region: apart.isdisjoint((region.side, site) for site in (*region.sites, *region.ends))
        for region in found
    }


def _agree(meeting: Meeting, same: float) -> bool:
    return meeting.error is not None and meeting.error.within(same)


_ROUNDED = 1e-6  # some roundings of float32, and what a few layers make of them
