"""Two sides of a place on the same tensors: the given ones, and such as those did not reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import torch
from torch import Tensor

from verifier.align import layouts
from verifier.diagnose.causes import cause_of_site, composed
from verifier.diagnose.excitations import (
    EXCITATIONS,
    FAR,
    LARGER,
    NONFINITE,
    TELLING_AFFINE,
    excited,
    is_excitable,
    size,
)
from verifier.diagnose.neighbourhood import distance, laid_as
from verifier.graph.operators import IRRELEVANT, canonical
from verifier.graph.ranges import ANYTHING
from verifier.graph.tensors import dense
from verifier.recognise.relation import compared
from verifier.records import Cause, Excited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.align import Alignment, Layout
    from verifier.diagnose.excitations import Excitation
    from verifier.diagnose.neighbourhood import Neighbourhood, Values
    from verifier.graph import KeptCall, Site
    from verifier.graph.ranges import Range
    from verifier.records import Comparison, PairResult

# What any number may be off by, relative to the larger of what both sides give and what they read: a step that
# cancels loses as many digits, and neither side is wrong for it.
_LIMIT = 1e-12
# The same between different operators, which are known to that: torch's softplus is the identity above 20, where it
# is 2e-9 more, and a logarithm of a sigmoid is not.
_LIMIT_OF_OTHERS = 1e-9
_DOUBLE_ROUNDOFF = 2.0**-53
_FACTOR = 64.0  # times what the baseline itself makes of one rounding of what it reads


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


def settings_of(site: Site) -> dict[str, object]:
    """The settings of a site that may matter to what comes out in evaluation, as values that compare."""
    return {name: canonical(value) for name, value in site.attributes.items() if name not in _NO_SETTING}


_NO_SETTING = IRRELEVANT | {"_stacklevel"}


class _Given(NamedTuple):
    """What both sides of a place gave and read on one excitation."""

    values: Values
    baseline: Tensor
    candidate: Tensor


class Trials:
    """Runs the two sides of a place on the same tensors."""

    def __init__(self, alignment: Alignment, others: Mapping[str, Tensor], limits: Sequence[Range]) -> None:
        self._alignment = alignment
        self._others = others
        self._limits = limits

    def tried(
        self, row: PairResult, baseline: Neighbourhood, candidate: Neighbourhood, *, briefly: bool = False
    ) -> Tried:
        """Whether the two sides of a row part on any excitation, or on a few that are far from what was given.

        Two affine functions are told apart by what each makes of nothing, and of numbers that are in no relation.
        """
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
        if baseline.is_affine and candidate.is_affine:
            some = TELLING_AFFINE[:1] if briefly else TELLING_AFFINE  # what was given tells the shift, too
        else:
            some = FAR if briefly else (*EXCITATIONS, *NONFINITE) if alike else EXCITATIONS
        for excitation in some:
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

    def on(
        self, inputs: str, baseline: Neighbourhood, candidate: Neighbourhood
    ) -> tuple[Values, Values, Tensor, Tensor] | None:
        """What both sides read and give on the inputs that `Excited.inputs` names; None where they cannot be run.

        Returns:
            The baseline's values by source, the candidate's, and what each side makes of them.
        """
        values = baseline.values()
        carried = self._carried(values, candidate.values())
        excitation = next((each for each in (*EXCITATIONS, *NONFINITE) if each.name == inputs), None)
        if carried is None or excitation is None:
            return None
        numbers = sorted(_numbers(baseline) | _numbers(candidate))
        changed = self._excited(values, excitation, numbers)
        bench = _Bench(baseline, candidate, carried, rebuilt=self._alignment.rebuilt)
        given = None if changed is None else bench.both(changed)
        return None if given is None else (given.values, bench.there(given.values), *given[1:])

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

    def _apart(
        self, found: _Given, baseline: Neighbourhood, *, strictly: bool
    ) -> tuple[Comparison, float] | None:
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
        largest = max(map(size, (wanted, *found.values.values())))
        limit = _LIMIT if strictly else _LIMIT_OF_OTHERS
        if error.max_abs <= limit * largest:
            return None
        allowed = max(limit * largest, _FACTOR * self._sensitivity(found, baseline))
        return None if error.max_abs <= allowed else (error, allowed)

    def _sensitivity(self, found: _Given, baseline: Neighbourhood) -> float:
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
                relative(told),
            )
        return msgspec.structs.replace(
            cause,
            summary=f"{cause.summary}, which the given inputs do not reach",
            evidence=(*evidence, *cause.evidence),
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

    baseline: Neighbourhood
    candidate: Neighbourhood
    carried: Mapping[int, tuple[int, Layout | None]]
    rebuilt: bool

    def both(self, values: Values) -> _Given | None:
        """What both sides give on `values`; None where either cannot be run on them."""
        try:
            there = self.there(values)
        except RuntimeError:  # tensors of other sizes, for which the layout does not hold
            return None
        wanted, given = _made(self.baseline, values), _made(self.candidate, there)
        if wanted is None or given is None:
            return None
        return _Given(values, laid_as(wanted, given) if self.rebuilt else wanted, given)

    def calls(self, values: Values) -> _Calls | None:
        """Both calls on `values`; None where there is more than one operator on a side."""
        baseline, candidate = self.baseline.call, self.candidate.call
        if baseline is None or candidate is None or self.candidate.site is None:
            return None
        if self.baseline.between or self.candidate.between or self.baseline.site is None:
            return None
        return _Calls(
            baseline.with_operands(self.baseline.replay(values)),
            candidate.with_operands(self.candidate.replay(self.there(values))),
            self.candidate.site.output,
        )

    def there(self, values: Values) -> Values:
        """What the candidate's side reads where the baseline's reads `values`."""
        found = self.candidate.values()
        for twin, (source, layout) in self.carried.items():
            tensor = values[source]
            found[twin] = tensor if layout is None else layout.forth(tensor, found[twin].shape)
        return found


def _layout(baseline: Tensor, candidate: Tensor) -> Layout | None:
    """How the candidate lays out the baseline's tensor; None if it does not hold the same."""
    for layout in layouts(baseline.shape, candidate.shape):
        if distance(candidate, layout.forth(baseline, candidate.shape)) <= _SAME:
            return layout
    return None


_SAME = 1e-9


def _finite_on_one_side(given: _Given) -> bool:
    b, c = given.baseline, given.candidate
    return b.shape == c.shape and bool((b.isfinite() != c.isfinite()).any())


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


def relative(told: Excited) -> float:
    """What is allowed, as a relative error (NRMSE) of the same tensors."""
    if not told.error.max_abs or not math.isfinite(told.error.nrmse):
        return _LIMIT
    return max(_LIMIT, told.allowed * told.error.nrmse / told.error.max_abs)


def _made(side: Neighbourhood, values: Values) -> Tensor | None:
    """What one side gives where `values` come in from above; None where it cannot be run on them."""
    try:
        reads = side.replay(values)
        if side.call is None or side.site is None:
            return dense(reads[0])
        with torch.no_grad(), side.call.surroundings():
            return dense(side.call.made_on(reads)[side.site.output])
    except Exception:  # each operator refuses in a way of its own
        return None


def _one_operator(baseline: Neighbourhood, candidate: Neighbourhood) -> bool:
    """Whether both sides are one and the same operator, in other settings."""
    if baseline.between or candidate.between or baseline.site is None or candidate.site is None:
        return False
    return baseline.site.op == candidate.site.op


def _switched(baseline: Neighbourhood, candidate: Neighbourhood) -> bool:
    """Whether two calls of one operator differ in switches alone, which nobody computes from a size."""
    if not _one_operator(baseline, candidate) or baseline.site is None or candidate.site is None:
        return False
    b, c = settings_of(baseline.site), settings_of(candidate.site)
    apart = [name for name in b.keys() & c.keys() if b[name] != c[name]]
    return bool(apart) and all(isinstance(each[name], bool | str) for name in apart for each in (b, c))


def _numbers(side: Neighbourhood) -> set[float]:
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
