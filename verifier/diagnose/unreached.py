"""Sites that differ as written and give the same numbers: run alone on inputs that the given ones did not reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import torch
from torch import Tensor

from verifier.align import layouts
from verifier.diagnose.causes import cause_of_site, composed
from verifier.diagnose.diagnosis import Half, Place
from verifier.diagnose.excitations import EXCITATIONS, LARGER, NONFINITE, excited, is_excitable
from verifier.diagnose.neighbourhood import distance, laid_as
from verifier.diagnose.relation import compared
from verifier.graph.operators import IRRELEVANT, MOVES, canonical
from verifier.graph.ranges import ANYTHING, ranges
from verifier.lockstep import Comparing, Lane, run
from verifier.result import Cause, Excited, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from verifier.align import Alignment, Layout
    from verifier.diagnose.excitations import Excitation
    from verifier.diagnose.neighbourhood import Side, Values
    from verifier.graph import KeptCall, Site
    from verifier.graph.ranges import Range
    from verifier.result import Comparison, PairResult

# What any number may be off by, relative to the larger of what both sides give and what they read: a step that
# cancels loses as many digits, and neither side is wrong for it.
_LIMIT = 1e-12
# The same between different operators, which are known to that: torch's softplus is the identity above 20, where it
# is 2e-9 more, and a logarithm of a sigmoid is not.
_LIMIT_OF_OTHERS = 1e-9
_DOUBLE_ROUNDOFF = 2.0**-53
_FACTOR = 64.0  # times what the baseline itself makes of one rounding of what it reads

UNREACHED = "which the given inputs do not reach"


@dataclass(frozen=True)
class Tried:
    """What running one row's site alone has shown.

    Attributes:
        excited: Where the two sides part, and how far; None if they never did.
        cause: Why, if they part.
        alone: Whether it could be run alone at all.
        why: What is left open where they do not part, in words; empty if nothing is.
    """

    excited: Excited | None = None
    cause: Cause | None = None
    alone: bool = True
    why: str = ""


NOT_ALONE = Tried(alone=False, why="what it reads could not be changed on both sides alike")
_LARGER = "the two part where what it reads is one row and one column larger"


def unreached(
    alignment: Alignment,
    rows: Sequence[PairResult],
    others: Mapping[str, Tensor],
    open_lanes: Callable[[Sequence[int], Sequence[int]], tuple[Lane, Lane]],
) -> dict[int, Tried]:
    """Run every site alone that is written otherwise than the baseline's and gave the same numbers.

    Args:
        alignment: The pairs.
        rows: The judged rows, forced pass included.
        others: The baseline's parameters and buffers by name, as they are in the cell.
        open_lanes: Makes the baseline's lane and the candidate's, given the calls each is to keep.

    Returns:
        What was found, by the row's index; nothing of rows that are written alike.
    """
    places = [Place.of(alignment, row, rows) for row in rows if _agrees(row)]
    wanted = [_from_numbers(place) for place in places if _written_otherwise(place)]
    if not wanted:
        return {}
    tried = _tried(alignment, wanted, others, open_lanes)
    found = {place.row.index: each for place, each in zip(wanted, tried, strict=True)}
    # One side may go on in operators without a partner that undo what differs: a relu, then a minimum. And what
    # differs may be a choice that comes to the same: x > 0 and x >= 0, where the rest is 0. Both are then run to the
    # next pairs below.
    joined = [
        (place.row.index, _joined(place, below))
        for place in wanted
        if found[place.row.index].excited is not None
        for chooses in [_chooses(place)]
        if chooses or _goes_on(alignment, place)
        for below in places
        if place.row.index in below.row.above and (chooses or below.row.apart)
    ]
    further = _tried(alignment, [place for _, place in joined], others, open_lanes) if joined else []
    below: dict[int, list[Tried]] = {}
    for (index, _), each in zip(joined, further, strict=True):
        below.setdefault(index, []).append(each)
    for index, ends in below.items():
        if all(end.excited is None for end in ends):
            found[index] = next((end for end in ends if end.why), ends[0])
    return found


def _agrees(row: PairResult) -> bool:
    return (
        row.status in {Status.OK, Status.CARRIES, Status.AMPLIFIES}
        and row.op not in {"input", "state"}
        and None not in (row.baseline, row.candidate)
        and row.candidate_shape is None
        and not row.rewired
    )


def _written_otherwise(place: Place) -> bool:
    return _written(place.baseline) != _written(place.candidate)


def _written(half: Half) -> list[tuple[str, dict[str, object]]]:
    """Operators and settings of one side as far as they may matter to what comes out."""
    sites = (*half.between, *(() if half.site is None else (half.site,)))
    return [(site.op, _settings(site)) for site in sites if site.op not in MOVES]


def _settings(site: Site) -> dict[str, object]:
    return {name: canonical(value) for name, value in site.attributes.items() if name not in _NO_SETTING}


_NO_SETTING = IRRELEVANT | {"_stacklevel"}


def _from_numbers(place: Place) -> Place:
    """The place with the operators above that make truth values and indices: these cannot be excited themselves."""
    return replace(place, baseline=_raised(place.baseline), candidate=_raised(place.candidate))


def _raised(half: Half) -> Half:
    sites = {site.index: site for site in half.between}
    stack = [*half.between, *(() if half.site is None else (half.site,))]
    while stack:
        for source in stack.pop().operands:
            if source is None or source < 0 or source in sites:
                continue
            site = half.graph.sites[source]
            if not _is_number(site) and site.comparable and half.graph.reads_inputs[source]:
                sites[source] = site
                stack.append(site)
    return replace(half, between=tuple(sites[index] for index in sorted(sites)))


def _is_number(site: Site) -> bool:
    """Whether a site gives numbers, not truth values or indices."""
    return site.dtype.startswith(("float", "bfloat", "complex"))


def _goes_on(alignment: Alignment, place: Place) -> bool:
    """Whether operators without a partner read what either side gives."""
    return any(
        half.site is not None
        and any(reader not in paired for reader in half.graph.consumers[half.site.index])
        for half, paired in (
            (place.baseline, alignment.partner),
            (place.candidate, alignment.partner_back),
        )
    )


def _chooses(place: Place) -> bool:
    """Whether what the place gives are no numbers of the model's but truth values or indices."""
    site = place.baseline.site
    return site is not None and not _is_number(site)


def _joined(upper: Place, lower: Place) -> Place:
    """Both places as one, which reads what the upper one reads and gives what the lower one gives."""
    halves = []
    for up, low in ((upper.baseline, lower.baseline), (upper.candidate, lower.candidate)):
        own = () if up.site is None else (up.site,)
        sites = {site.index: site for site in (*up.between, *low.between, *own)}
        halves.append(replace(low, between=tuple(sites[index] for index in sorted(sites))))
    return replace(lower, baseline=halves[0], candidate=halves[1])


def _tried(
    alignment: Alignment,
    places: Sequence[Place],
    others: Mapping[str, Tensor],
    open_lanes: Callable[[Sequence[int], Sequence[int]], tuple[Lane, Lane]],
) -> list[Tried]:
    """What each place gives on every excitation, in one forced pass."""
    lanes = open_lanes(
        sorted({call for place in places for call in place.baseline.calls}),
        sorted({call for place in places for call in place.candidate.calls}),
    )
    booth = _Booth(alignment, others)
    found = [NOT_ALONE] * len(places)
    at: dict[int, list[int]] = {}
    for k, place in enumerate(places):
        if place.baseline.site is not None:
            at.setdefault(place.baseline.site.index, []).append(k)
    left = [_uses(places, "baseline"), _uses(places, "candidate")]

    def look(k: int, tensors: Sequence[Tensor]) -> None:
        place = places[k]
        baseline = place.baseline.side(lanes[0].kept, tensors[0])
        candidate = place.candidate.side(lanes[1].kept, tensors[1])
        if baseline is not None and candidate is not None:
            found[k] = booth.tried(place.row, baseline, candidate)
        for lane, uses, half in zip(lanes, left, (place.baseline, place.candidate), strict=True):
            for call in half.calls:
                uses[call] -= 1
                if not uses[call]:
                    lane.kept.pop(call, None)

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        for k in at.get(alignment.pairs[pair].baseline, ()):
            look(k, tensors)

    passes = run(
        list(lanes),
        [[pair.baseline for pair in alignment.pairs], [pair.candidate for pair in alignment.pairs]],
        [Comparing(0, 1, force=True)],
        layouts=alignment.laid_out,
        visit=visit,
    )
    for k, place in enumerate(places):
        if place.baseline.site is None:
            look(k, [values[place.output] for values in passes.values])
    return found


def _uses(places: Iterable[Place], side: str) -> dict[int, int]:
    uses: dict[int, int] = {}
    for place in places:
        for call in getattr(place, side).calls:
            uses[call] = uses.get(call, 0) + 1
    return uses


class _Given(NamedTuple):
    """What both sides of a place gave and read on one excitation."""

    values: Values
    baseline: Tensor
    candidate: Tensor


class _Booth:
    """Runs the two sides of a place on the same tensors."""

    def __init__(self, alignment: Alignment, others: Mapping[str, Tensor]) -> None:
        self._alignment = alignment
        self._others = others
        self._limits = ranges(alignment.baseline)

    def tried(self, row: PairResult, baseline: Side, candidate: Side) -> Tried:
        """Whether the two sides of a row part on any excitation."""
        values = baseline.values()
        carried = self._carried(values, candidate.values())
        if carried is None:
            return NOT_ALONE
        bench = _Bench(baseline, candidate, carried, rebuilt=self._alignment.rebuilt)
        start = bench.both(values)
        if start is None or self._apart(start, baseline, strictly=False) is not None:
            return NOT_ALONE  # made again, they do not even give what they gave
        alike = _one_operator(baseline, candidate)
        numbers = sorted(_numbers(baseline) | _numbers(candidate))
        ran, endless = False, ""
        for excitation in (*EXCITATIONS, *NONFINITE) if alike else EXCITATIONS:
            changed = self._excited(values, excitation, numbers)
            given = None if changed is None else bench.both(changed)
            if given is None:
                continue
            ran = True
            found = self._apart(given, baseline, strictly=alike)
            if found is not None:
                told = Excited(inputs=excitation.name, error=found[0], allowed=found[1])
                return Tried(told, self._cause(row, bench, given, told))
            if not endless and _finite_on_one_side(given):
                endless = (
                    f"on the baseline's tensors {excitation.name} one of the two gives what is not finite"
                )
        if not ran:
            return NOT_ALONE
        larger = _switched(baseline, candidate) and self._parts_larger(values, bench)
        return Tried(why=_LARGER if larger else endless)

    def _carried(self, values: Values, there: Values) -> dict[int, tuple[int, Layout | None]] | None:
        """For each source of the candidate's side the baseline's, and how that is laid out there.

        None where something that can be excited on one side does not come from the same place on the other.
        """
        partner = self._alignment.partner
        found: dict[int, tuple[int, Layout | None]] = {}
        for source, tensor in values.items():
            twin = source if source < 0 else partner.get(source)
            if twin is None or twin not in there:
                if is_excitable(tensor):
                    return None
            elif there[twin].shape == tensor.shape:
                found[twin] = source, None
            else:
                layout = _layout(tensor, there[twin])
                if layout is None:
                    return None
                found[twin] = source, layout
        return None if any(is_excitable(t) for source, t in there.items() if source not in found) else found

    def _excited(self, values: Values, excitation: Excitation, numbers: Sequence[float]) -> Values | None:
        """The same sources with other numbers; None where that changes nothing."""
        changed = {
            source: excited(tensor, excitation, numbers, self._range(source))
            for source, tensor in values.items()
        }
        same = all(changed[source].equal(tensor) for source, tensor in values.items())
        return None if same else changed

    def _range(self, source: int) -> Range:
        return self._limits[source] if source >= 0 else ANYTHING

    def _apart(self, found: _Given, baseline: Side, *, strictly: bool) -> tuple[Comparison, float] | None:
        """How far the two sides are apart, and what the largest difference may be; None if they are not.

        A number that is not finite on one side alone counts if `strictly`; else it is no number for either.
        """
        wanted, given = found.baseline, found.candidate
        if wanted.shape != given.shape or not wanted.numel():
            return None
        if not strictly:
            both = wanted.isfinite() & given.isfinite()
            wanted, given = (torch.where(both, each, torch.zeros_like(each)) for each in (wanted, given))
        error = compared(given, wanted)
        if error.nonfinite_mismatched:
            return error, _LIMIT
        size, read = _size(wanted), max(map(_size, found.values.values()), default=0.0)
        limit = _LIMIT if strictly else _LIMIT_OF_OTHERS
        if error.max_abs <= limit * max(size, read):
            return None
        allowed = max(limit * max(size, read), _FACTOR * self._sensitivity(found, baseline))
        return None if error.max_abs <= allowed else (error, allowed)

    def _sensitivity(self, found: _Given, baseline: Side) -> float:
        """What the baseline's side makes of one rounding of all that it reads: the largest change of any number."""
        plain = _made(baseline, found.values)
        changes = []
        for sign in (1, -1):
            moved = _made(baseline, {source: _rounded(t, sign) for source, t in found.values.items()})
            if plain is not None and moved is not None and plain.shape == moved.shape:
                changes.append(_largest_change(plain, moved))
        return min(changes, default=0.0)  # where it jumps, it does so in one of the two directions

    def _cause(self, row: PairResult, bench: _Bench, given: _Given, told: Excited) -> Cause:
        evidence = (
            f"on the given inputs both give the same; on the baseline's tensors {told.inputs} they part by a "
            f"relative error of {told.error.nrmse:.3g}",
        )
        calls = bench.calls(given.values)
        if calls is None:
            cause = composed(row, bench.baseline, bench.candidate)
        else:
            cause = cause_of_site(
                calls.candidate,
                calls.baseline,
                calls.output,
                given.baseline,
                given.candidate,
                self._others,
                _relative(told),
            )
        return msgspec.structs.replace(
            cause, summary=f"{cause.summary}, {UNREACHED}", evidence=(*evidence, *cause.evidence)
        )

    def _parts_larger(self, values: Values, bench: _Bench) -> bool:
        """Whether the two sides part on tensors that are one row and one column larger."""
        changed = {
            source: LARGER.make(tensor, ()) if is_excitable(tensor) and tensor.dim() > 2 else tensor
            for source, tensor in values.items()
        }
        given = bench.both(changed)
        if given is None:
            return False
        other_shape = given.baseline.shape != given.candidate.shape
        return other_shape or self._apart(given, bench.baseline, strictly=True) is not None


class _Calls(NamedTuple):
    """The calls of a place that is one operator on either side, on the same tensors."""

    baseline: KeptCall
    candidate: KeptCall
    output: int


@dataclass(frozen=True)
class _Bench:
    """The two sides of a place, and for each source of the candidate's which of the baseline's is put there."""

    baseline: Side
    candidate: Side
    carried: Mapping[int, tuple[int, Layout | None]]
    rebuilt: bool

    def both(self, values: Values) -> _Given | None:
        """What both sides give on `values`; None where either cannot be run on them."""
        try:
            there = self._there(values)
        except RuntimeError:  # tensors of other sizes, for which the layout does not hold
            return None
        wanted, given = _made(self.baseline, values), _made(self.candidate, there)
        if wanted is None or given is None:
            return None
        return _Given(values, laid_as(wanted, given) if self.rebuilt else wanted, given)

    def calls(self, values: Values) -> _Calls | None:
        """Both calls on `values`; None where there is more than one operator on a side."""
        one, other = self.baseline.call, self.candidate.call
        if one is None or other is None or self.candidate.site is None:
            return None
        if self.baseline.between or self.candidate.between or self.baseline.site is None:
            return None
        return _Calls(
            one.with_operands(self.baseline.replay(values)),
            other.with_operands(self.candidate.replay(self._there(values))),
            self.candidate.site.output,
        )

    def _there(self, values: Values) -> Values:
        own = self.candidate.values()
        for twin, (source, layout) in self.carried.items():
            tensor = values[source]
            own[twin] = tensor if layout is None else layout.forth(tensor, own[twin].shape)
        return own


def _layout(tensor: Tensor, other: Tensor) -> Layout | None:
    """How the candidate lays out what is the baseline's `tensor`; None if it does not hold the same."""
    for layout in layouts(tensor.shape, other.shape):
        if distance(other, layout.forth(tensor, other.shape)) <= _SAME:
            return layout
    return None


_SAME = 1e-9


def _finite_on_one_side(given: _Given) -> bool:
    one, other = given.baseline, given.candidate
    return one.shape == other.shape and bool((one.isfinite() != other.isfinite()).any())


def _rounded(tensor: Tensor, sign: int) -> Tensor:
    """Every number one unit in the last place up or down, in turn."""
    if not is_excitable(tensor):
        return tensor
    turns = torch.arange(tensor.numel(), device=tensor.device).reshape(tensor.shape) % 2 * 2 - 1
    return tensor * (1 + 2 * _DOUBLE_ROUNDOFF * sign * turns)


def _largest_change(one: Tensor, other: Tensor) -> float:
    if not one.is_complex():
        one, other = one.double(), other.double()
    change = (one - other).abs().nan_to_num(0.0, 0.0, 0.0)
    return float(change.amax()) if change.numel() else 0.0


def _relative(told: Excited) -> float:
    """What is allowed, as a relative error (NRMSE) of the same tensors."""
    if not told.error.max_abs or not math.isfinite(told.error.nrmse):
        return _LIMIT
    return max(_LIMIT, told.allowed * told.error.nrmse / told.error.max_abs)


def _made(side: Side, values: Values) -> Tensor | None:
    """What one side gives where `values` come in from above; None where it cannot be run on them."""
    try:
        reads = side.replay(values)
        if side.call is None or side.site is None:
            return reads[0]
        return side.call.with_operands(reads).run()[0][side.site.output]
    except Exception:  # each operator refuses in a way of its own
        return None


def _one_operator(baseline: Side, candidate: Side) -> bool:
    """Whether both sides are one and the same operator, in other settings."""
    if baseline.between or candidate.between or baseline.site is None or candidate.site is None:
        return False
    return baseline.site.op == candidate.site.op


def _switched(baseline: Side, candidate: Side) -> bool:
    """Whether two calls of one operator differ in switches alone, which nobody computes from a size."""
    if not _one_operator(baseline, candidate) or baseline.site is None or candidate.site is None:
        return False
    one, other = _settings(baseline.site), _settings(candidate.site)
    apart = [name for name in one.keys() & other.keys() if one[name] != other[name]]
    return bool(apart) and all(isinstance(each[name], bool | str) for name in apart for each in (one, other))


def _numbers(side: Side) -> set[float]:
    """The numbers among the settings of all operators of one side."""
    sites = (*(site for site, _ in side.between), *(() if side.site is None else (side.site,)))
    return {number for site in sites for value in site.attributes.values() for number in _flat(value)}


def _flat(value: object) -> Iterator[float]:
    if isinstance(value, tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        yield float(value)


_LARGEST = 1e6  # beyond it a number is no bound that an input comes near


def _size(tensor: Tensor) -> float:
    """The root mean square of a tensor's finite numbers."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0
    return float(tensor.nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt())
