"""Moments of a pair of tensors: a commutative monoid of sums, counts and maxima."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.metrics.frame import INITIAL, Frame

# Below this share of unexplained variance the residual is refitted: about 4 of 16 digits are then gone.
ILL_CONDITIONED = 1e-4
# A slope this close to 0 leaves b - a without the digits of b.
LEADLESS = 0.5

if TYPE_CHECKING:
    from collections.abc import Iterable


def _total(parts: Iterable[float]) -> float:
    """The sum without rounding on the way; infinite or NaN where the parts leave float64's range."""
    parts = tuple(parts)
    try:
        return math.fsum(parts)
    except (OverflowError, ValueError):
        return sum(parts)


@dataclass(frozen=True, slots=True)
class Centred:
    """Sums of squares and products about the means: a with a, b with b, a with b, and the residual e."""

    aa: float
    bb: float
    ab: float
    ee: float
    ae: float

    @property
    def unexplained(self) -> float:
        """The part of `ee` that is not linear in a: sum of squares of b's residual on a, at least 0."""
        return max(0.0, self.ee - self.ae * (self.ae / self.aa)) if self.aa > 0 else self.ee


@dataclass(frozen=True, slots=True)
class Moments:
    """What remains of a baseline a and a candidate b once both were read.

    Sums run over the elements finite on both sides (`finite` of `elements`), about the origins of `frame`.
    `sum_dd` is the plain sum of (b - a)^2. `max_abs` is the largest |b - a| and `max_abs_index` the lowest
    logical coordinate that has it (None where no element is finite on both sides); `max_rel` is the largest
    |b - a| / |a| where a is not 0. `mismatch_index` is the lowest coordinate at which the two disagree about
    a NaN or an infinity. `Moments.empty()` is the identity of `merge`.
    """

    elements: int = 0
    finite: int = 0
    nonfinite_baseline: int = 0
    nonfinite_candidate: int = 0
    nonfinite_mismatched: int = 0
    mismatch_index: tuple[int, ...] | None = None
    max_abs: float = 0.0
    max_abs_index: tuple[int, ...] | None = None
    max_rel: float = 0.0
    sum_dd: float = 0.0
    frame: Frame = INITIAL
    sum_u: float = 0.0
    sum_v: float = 0.0
    sum_e: float = 0.0
    sum_uu: float = 0.0
    sum_vv: float = 0.0
    sum_uv: float = 0.0
    sum_ee: float = 0.0
    sum_ue: float = 0.0

    @classmethod
    def empty(cls) -> Moments:
        """The moments of no elements at all."""
        return cls()

    @property
    def identical(self) -> bool:
        """Whether every element agrees, NaNs and infinities included; False where nothing was compared."""
        return self.elements > 0 and self.max_abs == 0 and self.nonfinite_mismatched == 0

    @property
    def raw_aa(self) -> float:
        """Sum of a^2."""
        origin = self.frame.origin_a
        return self.sum_uu + origin * (2 * self.sum_u + self.finite * origin)

    @property
    def raw_bb(self) -> float:
        """Sum of b^2."""
        origin = self.frame.origin_b
        return self.sum_vv + origin * (2 * self.sum_v + self.finite * origin)

    @property
    def raw_ab(self) -> float:
        """Sum of a * b."""
        a, b = self.frame.origin_a, self.frame.origin_b
        return _total((self.sum_uv, a * self.sum_v, b * self.sum_u, self.finite * a * b))

    def centred(self) -> Centred:
        """Sums of squares and products about the means."""
        n = max(self.finite, 1)
        return Centred(
            aa=self.sum_uu - self.sum_u * (self.sum_u / n),
            bb=self.sum_vv - self.sum_v * (self.sum_v / n),
            ab=self.sum_uv - self.sum_u * (self.sum_v / n),
            ee=self.sum_ee - self.sum_e * (self.sum_e / n),
            ae=self.sum_ue - self.sum_u * (self.sum_e / n),
        )

    def refitted_frame(self) -> Frame | None:
        """The frame about the line of b on a, or None where this one loses no digits that matter.

        Where b is nearly a multiple of a, but not a itself, its small residual is a difference of large sums.
        Reading the tensors once more about the fitted line avoids that.
        """
        parts = self.centred()
        if not (0 < parts.aa < math.inf and 0 < parts.ee < math.inf):
            return None
        if not parts.unexplained < ILL_CONDITIONED * parts.ee:
            return None
        n, frame = self.finite, self.frame
        mean_u = self.sum_u / n
        if parts.ee < parts.bb:
            # The rounding of ae / aa is that of e, smaller than that of b.
            change = parts.ae / parts.aa
            mean = self.sum_e / n - change * mean_u
            return replace(frame, rest=frame.rest + change, origin_e=frame.origin_e + mean)
        slope = parts.ab / parts.aa
        lead = 0.0 if abs(slope) < LEADLESS else 1.0
        rest = slope - lead
        mean = (frame.origin_b - lead * frame.origin_a) + (self.sum_v / n - lead * mean_u) - rest * mean_u
        return replace(frame, lead=lead, rest=rest, origin_e=mean)

    def rebased(self, frame: Frame) -> Moments:
        """The same moments with sums about another frame."""
        old = self.frame
        if frame == old:
            return self
        if self.finite == 0:
            return replace(self, frame=frame)
        n = self.finite
        p = old.origin_a - frame.origin_a
        q = old.origin_b - frame.origin_b
        if old.lead > frame.lead:
            # e starts from b - a, which has lost digits of a much smaller b: start from b itself.
            x, xx, ux = self.sum_v, self.sum_vv, self.sum_uv
            s = -frame.rest
            t = (old.origin_b - frame.origin_e) - frame.rest * p
        else:
            x, xx, ux = self.sum_e, self.sum_ee, self.sum_ue
            s = _slope_difference(old, frame)
            t = (old.lead - frame.lead) * old.origin_a - frame.rest * p + (old.origin_e - frame.origin_e)
        # The new residual is x + s * u + t.
        sum_e = _total((x, s * self.sum_u, n * t))
        sum_ee = _total((xx, s * s * self.sum_uu, n * t * t, 2 * s * ux, 2 * t * x, 2 * s * t * self.sum_u))
        sum_ue = _total((ux, s * self.sum_uu, t * self.sum_u, p * sum_e))
        return replace(
            self,
            frame=frame,
            sum_u=self.sum_u + n * p,
            sum_v=self.sum_v + n * q,
            sum_e=sum_e,
            sum_uu=_total((self.sum_uu, 2 * p * self.sum_u, n * p * p)),
            sum_vv=_total((self.sum_vv, 2 * q * self.sum_v, n * q * q)),
            sum_uv=_total((self.sum_uv, q * self.sum_u, p * self.sum_v, n * p * q)),
            sum_ee=sum_ee,
            sum_ue=sum_ue,
        )

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of elements together; associative and commutative up to rounding.

        Coordinates are compared as they are: measure batches with their offset to keep them distinct.
        """
        if self.elements == 0 or other.elements == 0:
            return other if self.elements == 0 else self
        frame = _common_frame(self, other)
        merged = self.rebased(frame)._plus(other.rebased(frame))
        better = merged.refitted_frame()
        return merged if better is None else self.rebased(better)._plus(other.rebased(better))

    def _plus(self, other: Moments) -> Moments:
        """The sums of both, which are about the same frame."""
        return Moments(
            elements=self.elements + other.elements,
            finite=self.finite + other.finite,
            nonfinite_baseline=self.nonfinite_baseline + other.nonfinite_baseline,
            nonfinite_candidate=self.nonfinite_candidate + other.nonfinite_candidate,
            nonfinite_mismatched=self.nonfinite_mismatched + other.nonfinite_mismatched,
            mismatch_index=_lowest(self.mismatch_index, other.mismatch_index),
            max_abs=max(self.max_abs, other.max_abs),
            max_abs_index=_winner(self, other),
            max_rel=max(self.max_rel, other.max_rel),
            sum_dd=self.sum_dd + other.sum_dd,
            frame=self.frame,
            sum_u=self.sum_u + other.sum_u,
            sum_v=self.sum_v + other.sum_v,
            sum_e=self.sum_e + other.sum_e,
            sum_uu=self.sum_uu + other.sum_uu,
            sum_vv=self.sum_vv + other.sum_vv,
            sum_uv=self.sum_uv + other.sum_uv,
            sum_ee=self.sum_ee + other.sum_ee,
            sum_ue=self.sum_ue + other.sum_ue,
        )


def _slope_difference(one: Frame, two: Frame) -> float:
    return (one.lead - two.lead) + (one.rest - two.rest)


def _common_frame(one: Moments, two: Moments) -> Frame:
    """Origins of the part with more elements, slope of the part in which a varies more: symmetric rules."""
    if one.finite == 0 or two.finite == 0 or one.frame == two.frame:
        return two.frame if one.finite == 0 else one.frame
    larger = max(one, two, key=lambda part: (part.finite, part.frame))
    steeper = max(one, two, key=lambda part: (part.centred().aa, part.frame)).frame
    frame = larger.frame
    slope = _slope_difference(frame, steeper)
    if slope == 0:
        return frame
    mean = (larger.sum_e + slope * larger.sum_u) / larger.finite
    origin_e = (frame.lead - steeper.lead) * frame.origin_a + frame.origin_e + mean
    return replace(frame, lead=steeper.lead, rest=steeper.rest, origin_e=origin_e)


def _lowest(one: tuple[int, ...] | None, two: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if one is None or two is None:
        return two if one is None else one
    return min(one, two)


def _winner(one: Moments, two: Moments) -> tuple[int, ...] | None:
    if one.max_abs == two.max_abs:
        return _lowest(one.max_abs_index, two.max_abs_index)
    return one.max_abs_index if one.max_abs > two.max_abs else two.max_abs_index
