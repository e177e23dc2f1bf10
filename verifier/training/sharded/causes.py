"""What goes wrong between the processes of a training: gradients that are not added up, or once too often, ..."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from verifier.ranks import named
from verifier.sharded.placing import cut, join, place, sum_of
from verifier.sharded.slices import tolerance
from verifier.training.fitting import agree, factor_between, fit, near
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.placing import Placement

_CLOSE = 1e-9  # relative; what is fitted is exact but for rounding in float64
_FIT = 1e-6
_HELD = "it still holds the gradients of the batch before: zero_grad is missing"


@dataclass(frozen=True)
class Pieces:
    """What the ranks that have a parameter have of a tensor of it that is not the whole's, float64."""

    name: str
    whole: Tensor
    found: Sequence[Tensor | None]
    ranks: tuple[int, ...]
    placed: Placement

    @property
    def there(self) -> list[Tensor]:
        """Those that are there."""
        return [each for each in self.found if each is not None]


def of_gradient(pieces: Pieces, known: TrainingCause | None) -> TrainingCause | None:
    """Why a gradient is wrong, if it is for what the processes do to each other; else what is known.

    Args:
        pieces: What the ranks have of it.
        known: What explains it as if one process had it.
    """
    if not pieces.there:
        return known
    if len(pieces.there) < len(pieces.found):
        without = [r for r, each in zip(pieces.ranks, pieces.found, strict=True) if each is None]
        return _confirmed("shard-gradient-missing", f"there is none on {named(without)}")
    return (
        _factor(pieces)
        or _unreduced(pieces)
        or _other_order(pieces)
        or some(pieces)
        or known
        or _apart(pieces)
    )


def total(pieces: Pieces) -> Tensor | None:
    """The sum over the ranks that have the same part, where these differ, as one tensor; None where none do."""
    there, placed = pieces.there, pieces.placed
    cuts = _cut(pieces)
    if cuts is None or not placed.reduced:
        return None
    parts = placed.parts or ((0,) * len(there) if placed.kind == "replica" else tuple(range(len(there))))
    sets = [[k for k, part in enumerate(parts) if part == each] for each in range(max(parts) + 1)]
    if all(agree(there[each[0]], there[k], _CLOSE) for each in sets for k in each[1:]):
        return None
    return join(replace(placed, parts=()), pieces.whole, [sum_of([there[k] for k in each]) for each in sets])


def copies(pieces: Pieces) -> int:
    """How many ranks have the same part."""
    if pieces.placed.parts:
        return len(pieces.found) // len(set(pieces.placed.parts))
    return len(pieces.found) if pieces.placed.kind == "replica" else 1


def summed(pieces: Pieces, share: int, number: int = 0) -> Tensor | None:
    """What terms make up: their sum, or their mean over the ranks that share samples; None where they are none.

    Args:
        pieces: The terms.
        share: How many groups of ranks have samples of their own.
        number: What their sum is divided by, where it is known, should they make up something else.
    """
    made = total(pieces)
    if made is None:
        return None
    ways = [made / share, made / copies(pieces)] if share > 1 else [made]
    return next(
        (each for each in ways if agree(pieces.whole, each, _CLOSE)), made / number if number else ways[0]
    )


def reduced(terms: Pieces, pieces: Pieces, share: int) -> int:
    """What the sum of terms that differ is divided by, if copies of that are applied, or clipped ones; else 0."""
    made = total(terms)
    if made is None or len(pieces.there) < len(pieces.found) or total(pieces) is not None:
        return 0
    applied = join(pieces.placed, pieces.whole, pieces.there)
    factor = None if applied is None else fit(made, applied, _CLOSE)
    if factor is None or factor <= 0:
        return 0
    ways = (share, copies(pieces)) if share > 1 else (1,)
    return max((each for each in ways if factor <= (1 + _FIT) / each), default=share)


def uncleared(pieces: Pieces, held: Sequence[Tensor | None]) -> TrainingCause | None:
    """Some ranks' gradients are on top of what those had before the pass."""
    cuts, wrong = _cut(pieces), _wrong(pieces)
    if cuts is None or not wrong:
        return None
    for rank, b, c, before in zip(pieces.ranks, cuts, pieces.there, held, strict=True):
        if rank in wrong and (before is None or before.shape != b.shape or not agree(c, b + before, _CLOSE)):
            return None
    return _confirmed("gradients-not-cleared", f"on {named(wrong)} {_HELD}")


def uncleared_term(
    pieces: Pieces, held: Sequence[Tensor | None], made: Tensor, share: int
) -> TrainingCause | None:
    """The same of one rank's term of what the ranks make up."""
    left = (made - pieces.whole) * share
    there = [each for each in held if each is not None and each.shape == left.shape and float(each.norm())]
    if not any(agree(each, left, _FIT) for each in there):
        return None
    return _confirmed("gradients-not-cleared", f"on one of {named(pieces.ranks)} {_HELD}")


def never_reduced(terms: Pieces, pieces: Pieces) -> bool:
    """Whether what each rank applies is its own term, or times a number, or still none of the whole's on any."""
    if len(pieces.there) != len(terms.there):
        return False
    both = list(zip(terms.there, pieces.there, strict=True))
    if all(agree(b, c, _CLOSE) or factor_between(b, c) is not None for b, c in both):
        return True
    cuts = _cut(pieces)
    if cuts is None or total(pieces) is None:
        return False
    return all(fit(b, c) is None for b, c in zip(cuts, pieces.there, strict=True))


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


def _unreduced(pieces: Pieces) -> TrainingCause | None:
    """Copies of a parameter with gradients that are terms of the whole's, and differ."""
    made, count = total(pieces), copies(pieces)
    share = None if made is None else fit(made, pieces.whole, _CLOSE)
    number = 0 if share is None or share <= 0 else round(1 / share)
    if share is None or not number or count % number or not near(share * number, 1.0, _FIT):
        return None
    how = {1: "sum", count: "mean"}.get(number, f"sum, divided by {number},")
    return _confirmed(
        "shard-gradient-unreduced",
        f"each rank has its own term of it: the {how} over {named(pieces.ranks)} is the baseline's",
    )


def _apart(pieces: Pieces) -> TrainingCause | None:
    """Copies of a parameter with gradients of which none is the whole's, and not two are the same."""
    there = pieces.there
    if pieces.placed.kind != "replica" or len(there) < max(2, len(pieces.found)) or _wrong(pieces):
        return None
    if any(agree(one, two, _CLOSE) for one, two in itertools.combinations(there, 2)):
        return None
    return TrainingCause(
        code="shard-gradient-unreduced",
        summary=f"each of {named(pieces.ranks)} has another gradient of it, none the baseline's: terms of it are "
        "not added up",
    )


def _factor(pieces: Pieces) -> TrainingCause | None:
    """All ranks have the whole's times one number: that of the ranks, or one over it."""
    whole = pieces.whole
    cuts = _cut(pieces)
    if cuts is None:
        return None
    factors = [
        factor_between(b, c)
        for b, c in zip(cuts, pieces.there, strict=True)
        if b.numel() and float(b.abs().max())
    ]
    known = [each for each in factors if each is not None]
    if not known or len(known) < len(factors) or not math.isfinite(float(whole.norm())):
        return None
    if all(near(each, known[0], _FIT) for each in known):
        count = len(pieces.ranks)
        for size in (each for each in range(2, count + 1) if not count % each):
            if near(known[0], size, _FIT):
                return _confirmed(
                    "shard-gradient-scaled",
                    f"it is {size} times the baseline's: not divided by the number of ranks that share samples, or "
                    "added up once too often",
                )
            if near(known[0], 1 / size, _FIT):
                return _confirmed(
                    "shard-gradient-scaled",
                    f"it is 1/{size} of the baseline's: divided by the number of ranks once too often",
                )
        return None
    told = ", ".join(f"{each:.6g} on rank {rank}" for rank, each in zip(pieces.ranks, known, strict=False))
    return _confirmed(
        "shard-gradient-scaled-apart",
        f"it is another number of times the baseline's on each rank ({told}), as where each clips by the norm of "
        "its own gradients",
    )


def _other_order(pieces: Pieces) -> TrainingCause | None:
    """Slices of the whole's that lie otherwise than those of the parameter."""
    found = place(pieces.whole, pieces.there, tolerance(pieces.whole, 0.0))
    if found is None or not found.reduced or found.text == pieces.placed.text:
        return None
    return _confirmed(
        "shard-order", f"its parts lie as {found.text}, those of the parameter as {pieces.placed.text}"
    )


def set_apart(pieces: Pieces, options: Sequence[Mapping[str, Any]]) -> TrainingCause | None:
    """What an optimiser leaves that is set otherwise on some ranks, and wrong there alone."""
    wrong = _wrong(pieces)
    for key in dict.fromkeys(key for each in options for key in each):
        said = [each.get(key) for each in options]
        right = [value for rank, value in zip(pieces.ranks, said, strict=True) if rank not in wrong]
        others = [value for rank, value in zip(pieces.ranks, said, strict=True) if rank in wrong]
        if right and others and all(value == right[0] for value in right) and right[0] not in others:
            told = f"{others[0]:g}" if isinstance(others[0], float) else str(others[0])
            known = f"{right[0]:g}" if isinstance(right[0], float) else str(right[0])
            return TrainingCause(
                code="shard-options",
                summary=f"{key} is {told} on {named(wrong)}, elsewhere {known}, and elsewhere the numbers are right",
            )
    return None


def some(pieces: Pieces) -> TrainingCause | None:
    """Wrong on some ranks alone."""
    wrong = _wrong(pieces)
    if not wrong:
        return None
    return TrainingCause(code="shard-differs", summary=f"it is the baseline's but on {named(wrong)}")


def _wrong(pieces: Pieces) -> list[int]:
    """The ranks that have other numbers than they should, where some have the right ones; else none."""
    cuts = _cut(pieces)
    if cuts is None:
        return []
    right = [agree(b, c, _CLOSE) for b, c in zip(cuts, pieces.there, strict=True)]
    return [rank for rank, each in zip(pieces.ranks, right, strict=True) if not each] if any(right) else []


def _cut(pieces: Pieces) -> list[Tensor] | None:
    """What each rank should have; None where one has none, or another shape."""
    count = len(pieces.there)
    if count < len(pieces.found):
        return None
    cuts = cut(pieces.placed, pieces.whole, count) if pieces.whole.dim() else [pieces.whole] * count
    fits = all(b.shape == c.shape for b, c in zip(cuts, pieces.there, strict=True))
    return cuts if fits else None


def untrained(pieces: Pieces, why: Sequence[str]) -> TrainingCause | None:
    """There is nothing on some ranks, as those do not train it; `why` says so of each rank, where it is so."""
    without = [r for r, each in zip(pieces.ranks, pieces.found, strict=True) if each is None]
    said = {each for each, rank in zip(why, pieces.ranks, strict=True) if rank in without}
    if not without or len(said) > 1 or "" in said:
        return None
    return _confirmed("frozen", f"{said.pop()} on {named(without)}")
