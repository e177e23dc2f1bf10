"""The smallest edit of the candidate's own program that makes it the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.align import layouts
from verifier.diagnose.edits import (
    axes,
    kin,
    masks,
    numbers,
    operators,
    places,
    relations,
    reordering,
    stored,
    tensors,
    wiring,
    written,
)
from verifier.diagnose.edits.context import Context, Exhausted, Meter
from verifier.diagnose.edits.program import Program
from verifier.diagnose.edits.repeats import Repeats
from verifier.diagnose.neighbourhood import distance, laid_as

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.diagnose.edits.edit import Edit
    from verifier.diagnose.edits.program import Key
    from verifier.diagnose.neighbourhood import Lay, Neighbourhood, Values

Kind = Callable[[Context], Iterable["Edit"]]
"""Edits of one kind, in the order in which they are tried."""

# The kinds of edits, the smallest first: something written is another, then something stands elsewhere, then there is
# more or less of it, then several things at once.
KINDS: tuple[Kind, ...] = (
    written.discrete,
    wiring.exchanged,
    tensors.constants,
    tensors.parameters,
    written.everywhere,
    axes.others,
    numbers.endless,
    partial(numbers.solved, size=1),
    numbers.tied,
    wiring.crossed,
    operators.replaced_in_kind,
    kin.replaced,
    kin.taken,
    operators.fewer,
    wiring.resourced,
    wiring.reads_exchanged,
    operators.without,
    operators.more,
    operators.moved,
    reordering.turned,
    kin.one_more,
    kin.missing,
    reordering.undone_less,
    operators.chains,
    places.padded,
    places.grouped,
    operators.replaced,
    written.as_the_baselines,
    partial(numbers.solved, size=2),
    tensors.tables,
    reordering.turned_and_back,
    reordering.interleaved,
    reordering.swapped,
    relations.states_scaled,
    relations.scaled,
    relations.inserted,
    relations.all_inserted,
    written.twice_exchanged,
    masks.hidden,
    stored.effective,
    partial(numbers.solved, size=3),
)

# Those that are looked for in all turns of a loop at once, whose runs are long: what costs few of them first.
LOOPS: tuple[Kind, ...] = (
    written.discrete,
    wiring.exchanged,
    tensors.parameters,
    partial(numbers.solved, size=1),
    wiring.crossed,
    operators.fewer,
    operators.neighbours,
    wiring.reads_exchanged,
    reordering.turned,
    kin.replaced,
    kin.one_more,
    reordering.turned_and_back,
    operators.more,
    wiring.resourced,
    numbers.tied,
    operators.moved,
    kin.missing,
    operators.chains,
    operators.replaced,
    relations.states_scaled,
    relations.scaled,
    partial(numbers.solved, size=2),
)

# Those that one fault in two regions may be.
JOINT: tuple[Kind, ...] = (
    written.discrete,
    wiring.exchanged,
    tensors.constants,
    partial(numbers.solved, size=1),
    wiring.crossed,
    operators.moved,
    places.padded,
    places.grouped,
    operators.replaced,
)

# Runs of a region that one search may take, and seconds.
RUNS = 4000
_MORE = 400  # once an edit is found that holds on the given numbers and on no others
_LARGEST_WITH_LOOPS = 600
_MANY_TURNS = 4  # a loop rather than the same operators for queries, keys and values
_LARGEST = 40  # steps of a region: beyond, so much stands between that no single edit explains it


@dataclass(frozen=True)
class Found:
    """The smallest edit, another one that does as well, and the relative error before and after.

    `holds` says whether both sides still agree on other numbers than the given; None where that was not seen.
    """

    edit: Edit
    other: Edit | None
    before: float
    after: float
    holds: bool | None


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        found: The edit; None where there is none.
        runs: How often the region was run.
        cut: Whether it had cost enough before it was at its end.
        right: Whether there was nothing to search for: the region gives what is wanted.
    """

    found: Found | None
    runs: int
    cut: bool
    right: bool = False


def smallest_edit(
    context: Context, before: float, shaken: Context | None, kinds: Sequence[Kind] = KINDS
) -> Searched:
    """Search the kinds of edits, the smallest first, up to the first kind that has one."""
    weak: Found | None = None
    meter = context.meter
    try:
        for kind in kinds:
            found = _of_kind(context, kind(context), before, shaken)
            if found is not None and found.holds is not False:
                return Searched(found, meter.spent, cut=False)
            if found is not None and weak is None:
                weak = found
                meter.runs = min(meter.runs, meter.spent + _MORE)
    except Exhausted:
        return Searched(weak, meter.spent, cut=weak is None)
    return Searched(weak, meter.spent, cut=False)


def _of_kind(context: Context, edits: Iterable[Edit], before: float, shaken: Context | None) -> Found | None:
    best: Found | None = None
    try:
        for edit in _as_far_as_they_come(edits):
            after = context.error(edit.program)
            if not after <= context.limit:
                continue
            holds = None if shaken is None else _holds(edit, shaken)
            found = Found(edit, None, before, after, holds)
            if best is None or (best.holds is False and holds is not False):
                best = found
            elif holds is not False and not _same(best.edit, edit):
                return replace(best, other=edit)
    except Exhausted:
        if best is None or best.holds is False:
            raise
    return best


def _as_far_as_they_come(edits: Iterable[Edit]) -> Iterator[Edit]:
    """Edits up to one that cannot be made: what operators say to odd tensors is no reason to lose a result."""
    try:
        yield from edits
    except Exhausted:
        raise
    except Exception:
        return


def _same(one: Edit, other: Edit) -> bool:
    """Whether two edits are one in other words: the same thing done to the same calls."""
    moved = one.code == "order-different" and set(one.at) == set(other.at)
    return one.code == other.code and (one.remedy == other.remedy or moved)


def _holds(edit: Edit, shaken: Context) -> bool:
    try:
        whole = shaken.whole(edit.program)
        if whole is None:
            return False
        program = whole.on({**whole.values, **shaken.program.values})
        made = program.result_of(program.run())
    except Exception:
        return False
    return distance(made, shaken.wanted) <= shaken.limit


def searched(
    baseline: Neighbourhood,
    candidate: Neighbourhood,
    partner: Mapping[int, int],
    lay: Lay,
    wanted: Tensor,
    limit: float,
    meter: Meter,
    kinds: Sequence[Kind] = KINDS,
) -> Searched | None:
    """Search both sides of a region, as programs on the baseline's tensors, for the smallest edit.

    None where a side cannot be run again or is no program.
    """
    values, twins = _values(baseline, candidate, partner, lay)
    program, other = Program.of(candidate, values), Program.of(baseline, baseline.values())
    if program is None or other is None or not program.steps:
        return None
    if max(len(program.steps), len(other.steps)) > _LARGEST_WITH_LOOPS:
        return None
    try:
        trace, other_trace = program.run(), other.run()
    except Exception:
        return None
    before = distance(program.result_of(trace), wanted)
    if before <= limit:
        return Searched(None, 0, cut=False, right=True)
    context = Context(
        program, trace, other, other_trace, twins, wanted, limit, meter, partial(_laid, lay=lay)
    )
    repeats = Repeats.of(program, trace)
    if repeats is not None and len(program.steps) - len(repeats.passed_over) > _LARGEST:
        repeats = None
    looped = None if repeats is None else replace(context, repeats=repeats)
    small = max(len(program.steps), len(other.steps)) <= _LARGEST
    tries = [(context, kinds)] if small else []
    if looped is not None and repeats is not None:
        at = 0 if repeats.turns >= _MANY_TURNS else len(tries)
        tries.insert(at, (looped, LOOPS if kinds is KINDS else kinds))
    found: Searched | None = None
    for each, of_them in tries:
        again = smallest_edit(each, before, _shaken(each, lay), of_them)
        if again.found is not None:
            return _told_of_all_turns(again, again.found, each.repeats)
        found = found or again
    return found


def _told_of_all_turns(searched: Searched, found: Found, repeats: Repeats | None) -> Searched:
    """What was found, with how many turns of a loop the edit is made in, where it is made in one."""
    loops = () if repeats is None else repeats.loops
    turns = next((loop for loop in loops if any(step.name in found.edit.at for step in loop.turn)), None)
    if turns is None:
        return searched
    told = f"it is made in all {sum(map(len, turns.runs))} turns of a loop"
    edit = replace(found.edit, evidence=(*found.edit.evidence, told))
    return replace(searched, found=replace(found, edit=edit))


def _values(
    baseline: Neighbourhood, candidate: Neighbourhood, partner: Mapping[int, int], lay: Lay
) -> tuple[Values, dict[Key, Key]]:
    """What comes in on the candidate's side, what the baseline reads besides among it, and which is which."""
    found = candidate.values()
    here = None if candidate.site is None else candidate.site.index
    twins: dict[Key, Key] = {}
    for source, tensor in baseline.values().items():
        twin = source if source < 0 else partner.get(source)
        if twin is None or (here is not None and twin >= here):
            continue
        found[twin] = _laid(tensor, found[twin], lay) if twin in found else tensor
        twins[source] = twin
    return found, twins


def _laid(baseline: Tensor, candidate: Tensor, lay: Lay) -> Tensor:
    """The baseline's tensor as the candidate's side holds it: in the layout in which the two are equal, if any."""
    laid = lay(baseline, candidate)
    if laid.shape != candidate.shape or distance(laid, candidate) > _SAME:
        for layout in layouts(baseline.shape, candidate.shape):
            other = layout.forth(baseline, candidate.shape)
            if distance(other, candidate) <= _SAME:
                laid = other
                break
        else:
            if laid.shape != candidate.shape and laid.numel() == candidate.numel():
                laid = laid_as(baseline, candidate)
    return laid.to(candidate.dtype)


_SAME = 1e-9
_SPREAD = 0.3
_ROUNDING_ELSEWHERE = 1e-9  # other operators round otherwise, and other numbers may cancel more


def _shaken(context: Context, lay: Lay) -> Context | None:
    """Both sides on other numbers of the same signs; None where the baseline's cannot be run on them."""
    generator = torch.Generator().manual_seed(0)
    values = dict(context.baseline.values)
    other = dict(context.program.values)
    if any(
        key not in context.twins.values() and tensor.is_floating_point()
        for key, tensor in context.program.values.items()
    ):
        return None  # what comes in from elsewhere could not be changed alike
    for source, tensor in values.items():
        twin = context.twins.get(source)
        if not tensor.is_floating_point():
            continue
        if twin is None:
            return None
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        values[source] = tensor * (_SPREAD * noise).exp()
        other[twin] = _laid(values[source], other[twin], lay)
    if all(values[key] is tensor for key, tensor in context.baseline.values.items()):
        return None  # nothing comes in that could be other
    try:
        baseline = context.baseline.on(values)
        trace = baseline.run()
        wanted = baseline.result_of(trace)
    except Exception:
        return None
    if wanted.shape != context.wanted.shape or not bool(wanted.isfinite().any()):
        return None
    straight = context.baseline.result_of(context.baseline_trace)
    if distance(straight, context.wanted) > context.limit:
        return None  # laid out otherwise
    limit = max(context.limit, _ROUNDING_ELSEWHERE)
    return replace(context, program=context.program.on(other), wanted=wanted, limit=limit)
