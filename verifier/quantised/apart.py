"""A quantised candidate taken apart: its program with nothing rounded, and what is wrong with its quantisers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.bench.side import refuse_unwatched
from verifier.errors import UsageError
from verifier.inputs.samples import batches
from verifier.quantised.floats import bias_of, floats_in, stands_for
from verifier.quantised.keeping import TaskBudget
from verifier.quantised.sane import misread, off_zero, out_of_step, uneven, unlike, unsuited
from verifier.weights import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from verifier.bench.side import Side
    from verifier.forms.quantisers import Quantised, Stored
    from verifier.inputs import Inputs
    from verifier.quantised.floats import Float
    from verifier.quantised.sane import Fault


@dataclass(frozen=True)
class Apart:
    """A quantised candidate, taken apart.

    Attributes:
        quantised: The form.
        sides: The baseline, and the candidate with nothing rounded, with the baseline's weights where its codes are
            the rounding of these.
        weights: These weights by name.
        ceilings: What activations cut off above that rounding may stand for, by the layer before.
        matched: The weights in few bits that the baseline has, with what they are there.
        faults: What is wrong with quantisers by themselves, and with weights.
        doubts: What is wrong with them if the model is the baseline's function with nothing rounded.
        budget: What the layers to keep in float are searched for.
    """

    quantised: Quantised
    sides: tuple[Side, Side]
    weights: Mapping[str, Tensor]
    ceilings: Mapping[str, float]
    matched: Mapping[str, tuple[Stored, Float]]
    faults: tuple[Fault, ...]
    doubts: tuple[Fault, ...]
    budget: TaskBudget | None = None


def taken_apart(
    sides: tuple[Side, Side], given: Inputs, batch_size: int | None, asked: str | None, weights: str
) -> tuple[tuple[Side, Side], Apart | None]:
    """The two models that are compared: of a quantised candidate what it is with nothing rounded, taken apart.

    Args:
        sides: Both models.
        given: What they are run on.
        batch_size: Samples that go through at once; None for all.
        asked: The budget, as it was asked for.
        weights: Where the baseline's come from, as `verifier.weights.choose` has it.

    Raises:
        UsageError: The budget is none, or it is asked for and the candidate is not quantised or the baseline is, or
            the baseline is in a way that cannot be watched.
        CannotRunError: Both are quantised, the candidate in a way that cannot be watched.
    """
    budget = None if asked is None else TaskBudget.of(asked)
    trusted = None if sides[0].form is None else sides[0].form.quantised
    if trusted is not None and not trusted.watched:
        raise UsageError(
            f"the baseline is {trusted.kind}: give it as the candidate, and the float model as baseline."
        )
    form = sides[1].form
    if form is None or form.quantised is None:
        if asked is not None and trusted is not None:
            raise UsageError(
                f"the baseline is {trusted.kind} and the candidate is not quantised: the two seem exchanged. Give "
                "the float model as the baseline and the quantised one as the candidate."
            )
        if asked is not None:
            raise UsageError(
                "a budget of what is kept in float is for a quantised candidate, and this one is none that this "
                "verifier can take apart. Leave --keep-float-budget out."
            )
        return sides, None
    if trusted is not None:
        refuse_unwatched("candidate", form)
        if asked is not None:
            raise UsageError(
                "a budget of what is kept in float is for a quantised candidate beside a float baseline, and both "
                "are quantised. Leave --keep-float-budget out, or give the float model as the baseline."
            )
        return sides, None
    state = loaded(weights, sides[0].model)
    taken = apart(sides, form.quantised, batches(given, batch_size)[0], state, budget)
    return taken.sides, taken


def apart(
    sides: tuple[Side, Side],
    quantised: Quantised,
    inputs: Inputs,
    state: Mapping[str, Tensor],
    budget: TaskBudget | None = None,
) -> Apart:
    """A candidate with the form `quantised`, taken apart beside a float baseline with the tensors `state`."""
    baseline, candidate = sides
    known = [*floats_in(baseline.record(inputs), state)]
    weights: dict[str, Tensor] = {}
    matched: dict[str, tuple[Stored, Float]] = {}
    by_layer: dict[str, Float] = {}
    faults: list[Fault] = []
    for stored in quantised.stored:
        if stored.bias:
            continue
        found = stands_for(stored, known)
        if found is not None:
            weights[stored.name], matched[stored.name] = found.weight, (stored, found)
            by_layer |= dict.fromkeys(stored.layers, found)
        elif (fault := unlike(stored, known)) is not None:
            faults.append(fault)
    biases = {}
    for stored in quantised.stored:
        if not stored.bias or not stored.layers:
            continue
        own = by_layer.get(stored.layers[0])
        added = [each._replace(weight=each.bias) for each in known if each.bias is not None]
        other = stands_for(stored, added) if own is None else None  # of a weight that is kept in float
        exact = bias_of(stored, own) if other is None else other.weight
        if exact is not None:
            weights[stored.name] = exact
            biases[stored.layers[0]] = stored
    faults += _faults(quantised, matched, biases)
    read = {reader: each.name for each in quantised.roundings for reader in each.readers}
    doubts = out_of_step([*biases.values()], read)
    ceilings = {layer: each.ceiling for layer, each in by_layer.items() if math.isfinite(each.ceiling)}
    quantised = quantised.cutting(ceilings)
    form = quantised.undone(weights)
    undone = replace(
        candidate, model=form.program, given=form.program, form=form, notes=(*candidate.notes, *form.notes)
    )
    return Apart(
        quantised, (baseline, undone), weights, ceilings, matched, tuple(faults), tuple(doubts), budget
    )


def _faults(
    quantised: Quantised, matched: Mapping[str, tuple[Stored, Float]], biases: Mapping[str, Stored]
) -> Iterator[Fault]:
    yield from unsuited([*matched.values()], biases)
    for rounding in quantised.roundings:
        yield from filter(None, (misread(rounding), off_zero(rounding)))
    yield from uneven(quantised.roundings)
