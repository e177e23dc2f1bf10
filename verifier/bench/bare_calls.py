"""The two models as they are run outside: with nothing that watches them, and a second time.

Copies that were watched are called once more, bare. If that gives the very numbers of the watched run, nobody was
fooled and no state was kept. Where it does not, fresh copies are called twice, to tell which of the two it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.bench.subject import SIDES
from verifier.border.error_texts import account
from verifier.border.programs import translating
from verifier.errors import CannotRunError, ModelError, OutOfMemoryError
from verifier.graph.chance import same_chance
from verifier.graph.returned import Returned, words_apart
from verifier.graph.tensors import same_numbers
from verifier.inputs.samples import reversed_samples
from verifier.lockstep import Comparing, Plan, meet, run
from verifier.metrics import compare
from verifier.models.casting import arguments, running
from verifier.models.copying import unshared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.inputs import Inputs
    from verifier.lockstep import Meeting


@dataclass(frozen=True)
class Calls:
    """What bare calls of both models have shown.

    Attributes:
        first: The first bare calls against each other, a meeting for each output by position; empty where both models
            gave what they gave while they were watched.
        second: Likewise the second calls; empty where both gave what their first calls gave.
        others: Likewise calls on the same samples in another order, on the same copies.
        reversed: What the two returned there, the baseline and the candidate, if they keep no state.
        notes: What should be known of it in any case.
        differences: What the two return otherwise that is no number: other keys, other words.
    """

    first: tuple[Meeting, ...] = ()
    second: tuple[Meeting, ...] = ()
    others: tuple[Meeting, ...] = ()
    reversed: tuple[Sequence[Tensor], ...] = ()
    notes: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    def alone(self, whole: Sequence[Sequence[Tensor]], limits: Sequence[float]) -> bool:
        """Whether what both returned for a few samples, in reverse, is what they return for these among all.

        Args:
            whole: These samples' rows of what each returns for all.
            limits: For each output, what the baseline's is apart from float64 in this cell (NRMSE).
        """
        return len(self.reversed) == len(whole) and all(
            len(one) == len(two) == len(limits) and all(map(_near, one, two, limits))
            for one, two in zip(self.reversed, whole, strict=True)
        )


@dataclass(frozen=True)
class Called:
    """A copy of one model that has run once while it was watched.

    `returned` are the tensors it returned, `values` what was in them then.
    """

    model: nn.Module
    returned: Sequence[Tensor]
    values: Sequence[Tensor]


def called_again(bench: Bench, called: Sequence[Called] | None = None, *, by_order: bool = False) -> Calls:
    """Call both models bare, and compare what they return with the watched run and with each other.

    Args:
        bench: The two models and what they are called with; a few samples will do.
        called: The baseline and the candidate, as watched runs on these inputs in this cell have left them; None
            where there were none yet.
        by_order: Whether outputs are paired in their order whatever they are called.

    Raises:
        ModelError: A model fails when it is called bare, though it ran while it was watched.
        OutOfMemoryError: The device ran out of memory.
    """
    if called is None:
        called = _watched(bench)
    found = [_called(bench, side, done) for side, done in zip(SIDES, called, strict=True)]
    orders = [bench.graph(side).output_order for side in SIDES]
    differences, told = _returned([each.said for each in found], orders[1], by_order=by_order)
    second, others = ([each.second for each in found], [each.turned for each in found])
    if isinstance(second[1], str) and not isinstance(second[0], str):
        differences.append(f"the candidate's second call on the same inputs fails: {second[1]}")
    elif isinstance(others[1], str) and not isinstance(others[0], str):
        differences.append(f"the candidate's next call, on samples in another order, fails: {others[1]}")
    return Calls(
        first=() if all(each.seen for each in found) else _against([each.first for each in found]),
        second=() if all(each.steady for each in found) else _against(second),
        others=_against(others),
        reversed=_values(others) if all(each.steady for each in found) else (),
        notes=(*(note for each in found for note in each.notes), *told),
        differences=tuple(differences),
    )


@dataclass(frozen=True)
class _Story:
    """What one model returned when it was called bare: at first, again, and with the samples in another order.

    A call that failed is told by how. `said` is all that it returned, numbers or not; `seen` says that it gave what
    it had given while it was watched, `steady` that it gave the same again.
    """

    first: Sequence[Tensor]
    second: Sequence[Tensor] | str
    turned: Sequence[Tensor] | str
    said: Returned
    seen: bool
    steady: bool
    notes: tuple[str, ...] = ()


def _called(bench: Bench, side: str, done: Called) -> _Story:
    """Call one model again, and once more with its samples in another order."""
    given, cell, order = bench.given(side), bench.cell, bench.graph(side).output_order
    held, model = done.values, unshared(done.model)
    again = _attempt(side, model, cell, given)
    notes = []
    if not _alike(done.returned, held):
        notes.append(f"the {side} writes into what it returned before when it is called again")
    if not isinstance(again, str) and _alike(held, again.values(order)):
        turned = _read(_attempt(side, model, cell, reversed_samples(given)), order)
        return _Story(held, held, turned, again, seen=True, steady=True, notes=tuple(notes))
    model = unshared(bench.copied(side))
    once = _call(side, model, cell, given)
    first = [tensor.clone() for tensor in once.values(order)]
    second = _read(_attempt(side, model, cell, given), order)
    turned = _read(_attempt(side, model, cell, reversed_samples(given)), order)
    seen, steady = _alike(held, first), _alike(first, second)
    if not seen and _apart(held, first) <= _UNREPEATABLE * cell.unit_roundoff:
        notes.append(
            f"the {side} gives other bits when nothing watches it (a fused operator, say), within rounding"
            if steady
            else f"the {side} does not give the same bits every time it is run, only within rounding"
        )
    else:
        if not seen:
            notes.append(f"the {side} gives other numbers when nothing watches it{_by(held, first)}")
        if not steady:
            notes.append(_kept(bench, side, first, second))
    return _Story(first, second, turned, once, seen, steady, tuple(notes))


def _read(returned: Returned | str, order: tuple[int, ...] | None) -> Sequence[Tensor] | str:
    """The tensors as they are now, before the model is called again; how it failed, where it did."""
    return returned if isinstance(returned, str) else [t.clone() for t in returned.values(order)]


def _watched(bench: Bench) -> list[Called]:
    lanes = [bench.lane(side, inputs=bench.given(side), stops=()) for side in SIDES]
    models = [lane.model for lane in lanes]
    passes = run(lanes, Plan([[], []], []))
    return list(map(Called, models, [lane.outputs for lane in lanes], passes.values))


def _call(side: str, model: nn.Module, cell: Cell, inputs: Inputs) -> Returned:
    """One bare call, which draws the random numbers that every other call draws."""
    args, kwargs = arguments(inputs, cell)
    with translating(partial(_failed, side)), torch.no_grad(), running(cell), same_chance():
        return Returned.of(model(*args, **kwargs))


def _failed(side: str, error: BaseException) -> ModelError | OutOfMemoryError:
    if isinstance(error, torch.OutOfMemoryError):
        return OutOfMemoryError(
            f"out of memory in the {side}, run bare. Use a smaller --batch-size or --image-size."
        )
    return ModelError(f"the {side} fails when nothing watches it: {account(error)}")


def _attempt(side: str, model: nn.Module, cell: Cell, inputs: Inputs) -> Returned | str:
    """A call after which it may be too late: what it returned, or how it failed."""
    try:
        return _call(side, model, cell, inputs)
    except ModelError as error:
        return account(error.__cause__ or error)


def _near(one: Tensor, two: Tensor, limit: float) -> bool:
    """Whether two tensors are no further apart, row by row, than each is from float64."""
    two = two.to(one.device)
    if same_numbers(one, two):
        return True
    if one.shape != two.shape or not one.is_floating_point():
        return False
    a, b = (each.double().reshape(len(each) if each.dim() else 1, -1) for each in (one, two))
    apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b)
    return bool((apart.norm(dim=1) <= 2 * limit * b.nan_to_num(0.0, 0.0, 0.0).norm(dim=1)).all())


def _alike(one: Sequence[Tensor], two: Sequence[Tensor] | str) -> bool:
    return not isinstance(two, str) and len(one) == len(two) and all(map(same_numbers, one, two))


def _against(returned: Sequence[Sequence[Tensor] | str]) -> tuple[Meeting, ...]:
    sides = _values(returned)
    if len(sides) < len(returned):
        return ()
    count = min(map(len, sides))
    return meet(sides[0][:count], sides[1][:count])


def _values(returned: Sequence[Sequence[Tensor] | str]) -> tuple[Sequence[Tensor], ...]:
    return tuple(each for each in returned if not isinstance(each, str))


# Unit roundoffs by which kernels that add in another order every time may be apart at the end of a deep network.
_UNREPEATABLE = 1000


def _apart(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    """The largest relative error between two sets of outputs; infinite where their shapes differ."""
    if [a.shape for a in one] != [b.shape for b in two]:
        return math.inf
    errors = [compare(meeting.moments) for meeting in meet(one, two) if meeting.moments is not None]
    return max((error.nrmse for error in errors if error.elements), default=0.0)


def _by(one: Sequence[Tensor], two: Sequence[Tensor]) -> str:
    """How far two sets of outputs are apart, as the end of a sentence."""
    apart = _apart(one, two)
    return ": outputs of other shapes" if math.isinf(apart) else f", by a relative error of {apart:.2g}"


def _kept(bench: Bench, side: str, values: Sequence[Tensor], again: Sequence[Tensor] | str) -> str:
    """What to say of a model whose second call on the same inputs gives something else."""
    if isinstance(again, str):
        return f"the {side}'s second call on the same inputs fails: {again}"
    where = _first_site(bench, side)
    at = f"; {where}" if where else ""
    return (
        f"the {side} keeps state from call to call: a second call on the same inputs gives other numbers"
        f"{_by(values, again)}{at}"
    )


def _first_site(bench: Bench, side: str) -> str:
    """Where a second call first differs from a first one, as a few words; nothing where no site shows it."""
    graph = bench.graph(side)
    sites = [site.index for site in graph.comparable]
    try:
        lanes = [
            bench.lane(side, inputs=bench.given(side), stops=sites, called=called) for called in (False, True)
        ]
        with same_chance():
            passes = run(lanes, Plan([sites, sites], [Comparing(0, 1)]))
    except CannotRunError:
        return "it runs other operators then"
    for site, meeting in zip(sites, passes.meetings[0], strict=True):
        if not meeting.identical:
            return f"first at {graph.sites[site].name}"
    return ""


def _returned(
    returned: Sequence[Returned], order: Sequence[int] | None, *, by_order: bool
) -> tuple[list[str], list[str]]:
    """How the two differ in what is no number, and what of it should only be known."""
    baseline, candidate = returned
    found: list[str] = []
    told: list[str] = []
    keys, others = baseline.keys(), candidate.keys()
    if keys and others and set(keys) != set(others) and not by_order:
        found.append(
            f"the baseline returns {_listed(keys)}, the candidate {_listed(others)} "
            "(--outputs by-order compares them in their order)"
        )
    for said, may_say_nothing in words_apart(baseline.words, candidate.words):
        harmless = may_say_nothing and ("None" in said or found)
        (told if harmless else found).append(said)
    kinds = [candidate.kinds[k] for k in order or range(len(candidate.kinds))]
    for (name, _), kind, other in zip(baseline.tensors, baseline.kinds, kinds, strict=False):
        if kind != other:
            told.append(f"the output{f' {name}' if name else ''} is {other}, the baseline's {kind}")
    for place in dict.fromkeys((*baseline.unread, *candidate.unread)):
        both = dict.fromkeys(each.unread.get(place, "nothing of the kind") for each in returned)
        told.append(f"not compared: what is returned{f' at {place}' if place else ''}: {' and '.join(both)}")
    return found, told


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
