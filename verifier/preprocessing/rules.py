"""What a stage may differ by and still be the same function: rounding, which each kind of stage has its own of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from verifier.preprocessing import resampling
from verifier.preprocessing.photographs import as_array, in_steps
from verifier.records import StageDifference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.preprocessing.resampling import Reals

SINGLE_ROUNDOFF = 2.0**-24


class Rule(NamedTuple):
    """How a stage is judged: the unit of its numbers, the largest difference that is rounding, and why.

    Of a stage with `oracle` the limit is on the root mean square distance from exact arithmetic instead: a multiple
    of the baseline's own.
    """

    name: str
    unit: str
    limit: float
    why: str
    oracle: bool = False


FACTOR = 1.5  # rounding to whole steps once, twice or not at all stays below it; cutting off gives 1.8

RULES = {
    "decode": Rule("one step", "1/255", 1.0, "decoders may round a JPEG's inverse transform differently"),
    "resize": Rule(
        "rounding/bytes",
        "1/255",
        FACTOR,
        f"no further from exact arithmetic than {FACTOR:g} times torchvision's result is",
        oracle=True,
    ),
    "exact": Rule("exact", "1/255", 1e-3, "nothing is computed; as float32 numbers pixels are this exact"),
    "jitter": Rule("four steps", "1/255", 4.0, "each of four steps may round to bytes or cut"),
    "float32": Rule("rounding/float32", "1", 2 * SINGLE_ROUNDOFF, "two roundings of numbers below 1"),
    "normalise": Rule(
        "rounding/float32",
        "1",
        8 * SINGLE_ROUNDOFF / 0.2,
        "eight roundings, divided by the standard deviation",
    ),
}


@dataclass(frozen=True)
class Difference:
    """How two results of a stage differ: of which shapes, or by how much."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None
    largest: float = 0.0
    mean: float = 0.0
    share: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether all numbers are equal."""
        return self.shapes is None and self.share == 0

    def record(self, picture: str) -> StageDifference | None:
        """What to keep of it."""
        if self.shapes is not None:
            return None
        return StageDifference(largest=self.largest, mean=self.mean, share=self.share, picture=picture)


def difference(candidate: Sequence[object], baseline: Sequence[object], rule: Rule) -> Difference:
    """How a stage's pictures differ from the baseline's, in the rule's unit."""
    pairs = [(_numbers(a, rule), _numbers(b, rule)) for a, b in zip(candidate, baseline, strict=False)]
    if len(candidate) != len(baseline):
        return Difference(((len(candidate),), (len(baseline),)))
    for a, b in pairs:
        if a.shape != b.shape:
            return Difference((a.shape, b.shape))
    gaps = np.concatenate([np.abs(a - b).reshape(-1) for a, b in pairs])
    if not gaps.size:
        return Difference(None)
    gaps = np.where(np.isnan(gaps), math.inf, gaps)
    return Difference(None, float(gaps.max()), float(gaps.mean()), float(np.count_nonzero(gaps) / gaps.size))


def is_rounding(
    found: Difference, candidate: Sequence[object], baseline: Sequence[object], given: object, rule: Rule
) -> bool:
    """Whether a difference on identical input `given` is no more than rounding."""
    if found.exact:
        return True
    if found.shapes is not None:
        return False
    if not rule.oracle:
        return found.largest <= rule.limit
    source = in_steps(given)
    for c, b in zip(candidate, baseline, strict=True):
        exact = resampling.resize_exactly(source, *as_array(b).shape[:2])
        if not _rms(in_steps(c) - exact) <= rule.limit * _rms(in_steps(b) - exact) + NEGLIGIBLE:
            return False
    return True


NEGLIGIBLE = 0.05  # steps: where a picture is not resized at all the baseline is exact


def _rms(gaps: Reals) -> float:
    return math.sqrt(float(np.mean(np.square(gaps)))) if gaps.size else 0.0


def _numbers(picture: object, rule: Rule) -> np.ndarray[Any, Any]:
    if rule.unit == "1":
        return as_array(picture).astype(np.float64)
    return in_steps(picture)
