"""Which samples float64 sees: a few stand for all where both models give for them what they give among all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.bench.as_given import by_sample, made_for
from verifier.bench.at_once import fixed
from verifier.bench.comparing import Compared, Terms, compared
from verifier.bench.probes import Draw, a_call
from verifier.errors import CannotRunError, GraphDepartureError, InputError
from verifier.inputs.samples import batch_size, ends, picked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.bench.side import Side
    from verifier.inputs import Inputs, Stream


def on_samples(sides: tuple[Side, Side], given: Inputs, terms: Terms) -> Compared:
    """The comparison with a few samples for float64, or with all where a few will not do.

    A model may depend on how many samples there are, and the first dimension need not be the batch. Where one of the
    two alone does, or the batches asked for go another way, they are to be probed with so many samples, too.
    """
    parts = terms.parts(given)
    # Two are enough for a fault that mixes samples to show, and few enough for float64 to be quick.
    made = next(filter(None, (fixed(side, given) for side in sides)), None)
    numbers = [*range(made)] if made and made == terms.batch_size else sorted(ends(batch_size(given)))
    found: Compared | None = None
    alone = (True, True)
    anew = False
    if len(numbers) < batch_size(given):
        try:
            found = compared(sides, given, picked(given, numbers), terms)
        except GraphDepartureError:
            anew = True
        except (CannotRunError, InputError):
            pass  # what fails on a few samples may run on all; else that tells why
        if found is None or not found.alone:
            alone = _by_sample(sides, parts)
        if found is not None and all(alone):
            found = _with_samples_apart(sides, given, numbers, terms, found)
            return compared(sides, given, given, terms.anew()) if found.sample_counts_differ else found
    if not anew:
        try:
            whole = compared(sides, given, given, terms)
        except (GraphDepartureError, InputError):
            anew = True
    if anew:
        whole = compared(sides, given, given, terms.anew())
    doubtful = [*parts] if anew else []
    notes = whole.notes
    if alone[0] != alone[1]:
        odd = sides[0] if alone[1] else sides[1]
        if how := made_for(odd, given):
            notes = (
                *notes,
                f"the {odd.role} is made for {batch_size(given)} samples: {how}",
            )
        else:
            doubtful.append(picked(given, numbers))
    elif not all(alone) and found is not None and found.diverged:
        notes = (*notes, f"on {len(numbers)} samples the two part; both depend on how many there are")
    sizes = {batch_size(each): each for each in doubtful}
    sizes.pop(batch_size(given), None)
    draws = tuple(Draw(a_call(size), each, resized=True) for size, each in sizes.items())
    return replace(whole, notes=notes, doubtful=draws)


def _by_sample(sides: tuple[Side, Side], parts: Sequence[Inputs]) -> tuple[bool, bool]:
    """Whether each model gives for a few samples what it gives for these among all; both run on all."""
    return by_sample(sides[0], parts), by_sample(sides[1], [part.other or part for part in parts])


def _with_samples_apart(
    sides: tuple[Side, Side], given: Inputs, numbers: Sequence[int], terms: Terms, found: Compared
) -> Compared:
    """What was found on a few samples, or on these and those on which both part; on all if these do not tell."""
    if apart := [number for number in found.samples_apart if number not in numbers]:
        chosen = [*numbers, *apart]
        stream = terms.stream
        for few in [picked(given, chosen)] if stream is None else stream.alike(chosen, apart):
            found = compared(sides, given, few, terms)
            if not found.samples_apart:
                break
    elif terms.stream is not None and terms.semantics:
        found = _with_worst(sides, given, numbers, terms, found, terms.stream)
    return compared(sides, given, given, terms) if found.samples_apart else found


def _with_worst(
    sides: tuple[Side, Side],
    given: Inputs,
    numbers: Sequence[int],
    terms: Terms,
    found: Compared,
    stream: Stream,
) -> Compared:
    """What was found, if float64 finds nothing on the worst samples either: among many, one is lost in the mean."""
    worst = [number for number in found.worst_samples if number not in numbers]
    if not worst or found.diverged:
        return found
    for few in stream.alike([*numbers, *worst], worst):
        if compared(sides, given, few, replace(terms, requests=())).diverged:
            return compared(sides, given, few, terms)
    names = " and ".join(map(stream.name, worst))
    return replace(
        found, notes=(*found.notes, f"the outputs are furthest apart on {names}: float64 agrees there, too")
    )
