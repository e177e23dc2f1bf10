"""Where sums are taken from: origins and a slope that keep them well conditioned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Frame:
    """Origins of the baseline a, the candidate b and the residual e of b on a.

        u = a - origin_a
        v = b - origin_b
        e = b - lead * a - origin_e - rest * u

    Sums of squares about an origin K lose a factor 1 + n (K - mean)^2 / sum (x - mean)^2 of accuracy. With K
    the mean of any m of the n elements the factor is at most about n / m, since those m alone contribute
    m (K - mean)^2 to the denominator. The same holds for a slope `lead + rest` fitted to some of the data.
    `lead` is 0 or 1 and kept apart, so that e starts from the difference b - a, which is exact where the
    two are close, and `rest` holds the digits of slope - 1.
    """

    origin_a: float = 0.0
    origin_b: float = 0.0
    origin_e: float = 0.0
    lead: float = 1.0
    rest: float = 0.0


# The difference itself, about 0.
INITIAL = Frame()
