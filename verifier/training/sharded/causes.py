"""What goes wrong between the processes of a training: gradients that are not added up, or once too often, ..."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verifier.sharded.placing import cut, place, sum_of
from verifier.sharded.slices import tolerance
from verifier.training.fitting import agree, factor_between, near
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.placing import Placement

_CLOSE = 1e-9  # relative; what is fitted is exact but for rounding in float64
_FIT = 1e-6


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
        return _confirmed("shard-gradient-missing", f"there is none on {_named(without)}")
    return _factor(pieces) or _unreduced(pieces) or _other_order(pieces) or known or some(pieces)


def summed(pieces: Pieces) -> Tensor | None:
    """The whole's, where the pieces of a copied parameter are terms of it: their sum or their mean; else None."""
    if pieces.placed.kind != "replica" or len(pieces.there) < max(2, len(pieces.found)):
        return None
    if any(each.shape != pieces.whole.shape for each in pieces.there):
        return None
    if all(agree(pieces.there[0], each, _CLOSE) for each in pieces.there[1:]):
        return None
    total = sum_of(pieces.there)
    ways = (total, total / len(pieces.there))
    return next((each for each in ways if agree(pieces.whole, each, _CLOSE)), None)


def never_reduced(terms: Pieces, pieces: Pieces) -> bool:
    """Whether what each rank applies is its own term, or times a number: nothing was added up in between."""
    if len(pieces.there) < len(terms.there):
        return False
    both = list(zip(terms.there, pieces.there, strict=True))
    return all(agree(b, c, _CLOSE) or factor_between(b, c) is not None for b, c in both)


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


def _unreduced(pieces: Pieces) -> TrainingCause | None:
    """Copies of a parameter with gradients that are terms of the whole's, and differ."""
    found = summed(pieces)
    if found is None:
        return None
    how = "sum" if agree(found, sum_of(pieces.there), _CLOSE) else "mean"
    return _confirmed(
        "shard-gradient-unreduced",
        f"each rank has its own term of it: the {how} over {_named(pieces.ranks)} is the baseline's",
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
    size = len(pieces.ranks)
    if all(near(each, known[0], _FIT) for each in known):
        if near(known[0], size, _FIT):
            return _confirmed(
                "shard-gradient-scaled",
                f"it is {size} times the baseline's: added up over {size} ranks that have all of it each, or not "
                "divided by their number",
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
                summary=f"{key} is {told} on {_named(wrong)}, elsewhere {known}, and elsewhere the numbers are right",
            )
    return None


def some(pieces: Pieces) -> TrainingCause | None:
    """Wrong on some ranks alone."""
    wrong = _wrong(pieces)
    if not wrong:
        return None
    return TrainingCause(code="shard-differs", summary=f"it is the baseline's but on {_named(wrong)}")


def _wrong(pieces: Pieces) -> list[int]:
    """The ranks that have other numbers than they should, where some have the right ones; else none."""
    cuts = _cut(pieces)
    if cuts is None or len(pieces.there) < len(pieces.found):
        return []
    right = [agree(b, c, _CLOSE) for b, c in zip(cuts, pieces.there, strict=True)]
    return [rank for rank, each in zip(pieces.ranks, right, strict=True) if not each] if any(right) else []


def _cut(pieces: Pieces) -> list[Tensor] | None:
    cuts = cut(pieces.placed, pieces.whole, len(pieces.there))
    fits = all(b.shape == c.shape for b, c in zip(cuts, pieces.there, strict=True))
    return cuts if fits else None


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
