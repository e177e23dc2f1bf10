"""Distributions initial values are drawn from, each with its cumulative distribution function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Constant:
    """Every value is the same."""

    value: float

    def __str__(self) -> str:
        return f"constant {self.value:g}"


@dataclass(frozen=True, slots=True)
class Normal:
    """Mean 0, standard deviation `std`."""

    std: float

    def __str__(self) -> str:
        return f"normal, std {self.std:.4g}"

    @property
    def limit(self) -> float:
        """No value lies further from 0 than this."""
        return math.inf

    def scores(self, values: Array) -> Array:
        """Each value as the quantile of a standard normal distribution it is."""
        return values / self.std

    def cdf(self, values: Array) -> Array:
        """The share of the distribution up to each value."""
        return np.asarray(special.ndtr(values / self.std))


@dataclass(frozen=True, slots=True)
class Uniform:
    """From -`bound` to `bound`."""

    bound: float

    def __str__(self) -> str:
        return f"uniform within {self.bound:.4g}, std {self.std:.4g}"

    @property
    def std(self) -> float:
        """Standard deviation."""
        return self.bound / math.sqrt(3)

    @property
    def limit(self) -> float:
        """No value lies further from 0 than this."""
        return self.bound

    def scores(self, values: Array) -> Array:
        """Each value as the quantile of a standard normal distribution it is."""
        return _scores(self.cdf(values))

    def cdf(self, values: Array) -> Array:
        """The share of the distribution up to each value."""
        return np.asarray(np.clip((values + self.bound) / (2 * self.bound), 0, 1))


@dataclass(frozen=True, slots=True)
class TruncatedNormal:
    """A normal distribution of standard deviation `scale`, of which what lies beyond `limit` is drawn again."""

    scale: float
    limit: float

    def __str__(self) -> str:
        return f"normal, std {self.scale:.4g}, truncated at {self.limit:.4g}"

    @property
    def std(self) -> float:
        """Standard deviation of what is left.

        Johnson, Kotz and Balakrishnan, "Continuous Univariate Distributions", volume 1, section 10.1.
        """
        cut = self.limit / self.scale
        density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
        return self.scale * math.sqrt(1 - 2 * cut * density / math.erf(cut / math.sqrt(2)))

    def scores(self, values: Array) -> Array:
        """Each value as the quantile of a standard normal distribution it is."""
        return _scores(self.cdf(values))

    def cdf(self, values: Array) -> Array:
        """The share of the distribution up to each value."""
        low, high = special.ndtr(-self.limit / self.scale), special.ndtr(self.limit / self.scale)
        return np.asarray(np.clip((special.ndtr(values / self.scale) - low) / (high - low), 0, 1))


Continuous = Normal | Uniform | TruncatedNormal
Distribution = Constant | Continuous

# Half a step of the 24 random bits a float32 is made of: a draw of exactly the bound is no infinite quantile.
_HALF_A_STEP = 2.0**-25


def _scores(shares: Array) -> Array:
    return np.asarray(special.ndtri(np.clip(shares, _HALF_A_STEP, 1 - _HALF_A_STEP)))


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Fan-in and fan-out of a weight, as `torch.nn.init` counts them: groups are not divided out of the latter.

    Shapes are (out, in, *kernel); a vector or a number has 1 and 1, which torch refuses.
    """
    if len(shape) < 2:
        return 1, 1
    field = math.prod(shape[2:])
    return max(1, shape[1] * field), max(1, shape[0] * field)


RELU = math.sqrt(2)  # torch.nn.init.calculate_gain("relu")
DEFAULT = math.sqrt(1 / 3)  # ... ("leaky_relu", sqrt(5)), which makes a bound of 1 / sqrt(fan_in)


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A way to draw a tensor, with what depends on its shape left open.

    `kind` is `constant`, `normal`, `uniform`, `truncated` (cut at two standard deviations) or `trunc_normal_`
    (torch's, whose default cuts at -2 and 2, not at two standard deviations). `scale` is the constant, or the
    standard deviation, or for `fan` `in`, `out` or `average` the gain: the standard deviation is then
    gain / sqrt(fan).
    """

    name: str
    kind: str
    scale: float
    fan: str = ""

    def of(self, shape: Sequence[int]) -> Distribution:
        """The distribution for a tensor whose fans are those of `shape`."""
        std = self.scale
        if self.fan:
            fan_in, fan_out = fans(shape)
            fan = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[self.fan]
            std = self.scale / math.sqrt(fan)
        if self.kind == "constant":
            return Constant(std)
        if self.kind == "normal":
            return Normal(std)
        if self.kind == "uniform":
            return Uniform(std * math.sqrt(3))
        return TruncatedNormal(std, 2.0 if self.kind == "trunc_normal_" else 2 * std)


ZEROS = Initialiser("zeros_", "constant", 0.0)
ONES = Initialiser("ones_", "constant", 1.0)
KAIMING_OUT = Initialiser("kaiming_normal_(mode='fan_out', nonlinearity='relu')", "normal", RELU, "out")
KAIMING_IN = Initialiser("kaiming_normal_(mode='fan_in', nonlinearity='relu')", "normal", RELU, "in")
TORCH_DEFAULT = Initialiser("torch's default, uniform within 1 / sqrt(fan_in)", "uniform", DEFAULT, "in")


def _usual() -> tuple[Initialiser, ...]:
    gains = {"nonlinearity='relu'": RELU, "nonlinearity='linear'": 1.0}
    kaiming = [
        Initialiser(f"kaiming_{kind}_(mode='fan_{fan}', {words})", kind, gain, fan)
        for kind in ("normal", "uniform")
        for fan in ("out", "in")
        for words, gain in gains.items()
    ]
    xavier = [
        Initialiser(f"xavier_{kind}_({words})", kind, gain, "average")
        for kind in ("normal", "uniform")
        for words, gain in (("", 1.0), ("gain=sqrt(2)", RELU))
    ]
    plain = [Initialiser(f"normal_(std={std:g})", "normal", std) for std in (0.01, 0.02, 0.001, 0.1, 1.0)]
    # What is cut at two standard deviations has 0.8796 of the spread; some libraries make up for it.
    whole = 1 / TruncatedNormal(1.0, 2.0).std
    cut = [
        Initialiser(
            f"normal cut at two standard deviations{more}, fan_{fan}, gain {word}", "truncated", scale, fan
        )
        for fan in ("out", "in")
        for word, gain in (("sqrt(2)", RELU), ("1", 1.0))
        for more, scale in (("", gain), (" and widened to keep its spread", gain * whole))
    ]
    return (TORCH_DEFAULT, *kaiming, *xavier, *plain, *cut)


USUAL = _usual()
