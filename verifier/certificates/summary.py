"""What is kept of one tensor: a hash of its bits, moments, a histogram and a sketch, all of fixed size."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from verifier.certificates.bits import HASHES, BitHash, compiled_kernel
from verifier.certificates.sketch import (
    BUCKETS,
    MASK,
    PIECE,
    Array,
    Estimate,
    add,
    of_ones,
    pieces,
    signs,
    squares,
)
from verifier.graph.tensors import dense
from verifier.records import Comparison, Interval

if TYPE_CHECKING:
    from torch import Tensor

BINS = 16
PERIOD = 8191  # a prime, so that what shares a bucket has different weights
_SAMPLED = 1 << 12  # elements of a histogram


class Moments(NamedTuple):
    """Sums over the numbers of a tensor but those that are masked: not finite, or beyond `MASK`.

    A complex element is two numbers. `low` and `high` are NaN where all are masked. `weighted` is the sum of the
    numbers times weights that grow evenly from 0 to 1 over `PERIOD` of them, again and again: what changes places
    changes it.
    """

    numbers: int
    masked: int
    total: float
    squares: float
    low: float
    high: float
    weighted: float


MOMENTS = len(Moments._fields)


@dataclass(frozen=True, slots=True)
class Summary:
    """A tensor's summary.

    Attributes:
        bits: Hash of its bits (`verifier.certificates.bits`).
        mask: Hash of where numbers are NaN, or an infinity of which sign; all 0 where none are.
        moments: Its moments.
        histogram: Counts of about `_SAMPLED` of its numbers, evenly spaced by index, in `BINS` bins of one width from
            low to high; int64.
        sketch: Its sketch, float64, masked numbers taken as 0.
    """

    bits: tuple[int, ...]
    mask: tuple[int, ...]
    moments: Moments
    histogram: Array
    sketch: Array


_NONE = (0,) * HASHES


def bits_of(tensor: Tensor) -> tuple[int, ...]:
    """The hash of a tensor's bits alone, of any dtype, strides and device."""
    plain = _plain(tensor)
    hashed = BitHash(plain.device)
    for start, piece in pieces(plain):
        hashed.add(piece, start)
    return hashed.digits()


def summarise(tensor: Tensor, bits: tuple[int, ...] | None = None) -> Summary:
    """The summary of a tensor of any shape, dtype, strides and device; `bits` where its hash is known.

    It is read piece by piece: temporary memory is some MiB whatever its size.
    """
    plain = _plain(tensor)
    device = plain.device
    hashed = BitHash(device)
    each = 2 if plain.is_complex() else 1
    numbers = each * plain.numel()
    sums = _Sums(device)
    sample = []
    stride = max(1, numbers // _SAMPLED)
    for start, piece in pieces(plain):
        if bits is None:
            hashed.add(piece, start)
        values = torch.view_as_real(piece).reshape(-1) if plain.is_complex() else piece
        sample.append(sums.add(values, each * start)[-each * start % stride :: stride])
    low, high = sums.range()
    _total, _lengths, *_, _weighted = sums.sums.tolist()
    return Summary(
        bits=hashed.digits() if bits is None else bits,
        mask=_NONE if sums.masks is None else sums.masks.digits(),
        moments=Moments(
            numbers, sums.masked, float(sums.sums[0]), float(sums.sums[1]), low, high, float(sums.sums[4])
        ),
        histogram=_histogram(sample, low, high),
        sketch=sums.sketch.cpu().numpy(),
    )


@functools.lru_cache(8)
def ramp(device: torch.device) -> Tensor:
    """Two periods of weights."""
    return (torch.arange(2 * PERIOD, dtype=torch.float64, device=device) % PERIOD) / PERIOD


class _Sums:
    """Sketch and moments of what is added piece by piece."""

    def __init__(self, device: torch.device) -> None:
        self.sketch = torch.zeros(BUCKETS, dtype=torch.float64, device=device)
        self.sums = torch.tensor([0.0, 0.0, math.inf, -math.inf, 0.0], dtype=torch.float64, device=device)
        self.masks: BitHash | None = None
        self.masked = 0

    def add(self, values: Tensor, start: int) -> Tensor:
        """Add real numbers that follow each other from index `start` on; what is shown of them, masked ones as 0."""
        kernel = compiled_kernel()
        if kernel is not None and not values.is_cuda and values.dtype in (torch.float32, torch.float64):
            before = self.sketch.clone(), self.sums.clone()
            own = signs(start + len(values), values.device)[start:].numpy()
            weights = ramp(values.device).numpy()
            kernel.sketched(values.numpy(), own, weights, start, self.sketch.numpy(), self.sums.numpy())
            if self._plain():
                return values
            self.sketch, self.sums = before
        return self._add(values.double(), start)

    def _plain(self) -> bool:
        """Whether no number so far is masked; NaN and infinity would show in the sum of squares."""
        _, squares, low, high, _ = self.sums.tolist()
        return math.isfinite(squares) and low > -MASK and high < MASK

    def _add(self, values: Tensor, start: int) -> Tensor:
        if not bool((values.abs() < MASK).all()):
            codes = _codes(values)
            self.masks = self.masks or BitHash(values.device)
            self.masks.add(codes, start)
            hidden = codes != 0
            self.masked += int(hidden.sum())
            shown, values = values[~hidden], values.masked_fill(hidden, 0.0)
        else:
            shown = values
        add(self.sketch, values, start)
        self.sums[0] += values.sum()
        self.sums[1] += torch.dot(values, values)
        weights = ramp(values.device)[start % PERIOD :][:PERIOD].repeat(-(-len(values) // PERIOD))
        self.sums[4] += torch.dot(values, weights[: len(values)])
        if len(shown):
            low, high = torch.aminmax(shown)
            self.sums[2] = torch.minimum(self.sums[2], low)
            self.sums[3] = torch.maximum(self.sums[3], high)
        return values

    def range(self) -> tuple[float, float]:
        """The lowest and the highest number, NaN where there is none."""
        low, high = self.sums[2:4].tolist()
        return (low, high) if low <= high else (math.nan, math.nan)


def compared(baseline: Summary, candidate: Summary) -> Comparison:
    """What two summaries of tensors of one shape say of their difference; `interval` says how surely.

    Where the bits are the same nothing differs. The largest difference is not known: NaN.
    """
    b, c = baseline.moments, candidate.moments
    n = b.numbers - b.masked
    if baseline.bits == candidate.bits or not b.numbers:
        return equal(baseline)
    if baseline.mask != candidate.mask:
        apart = max(1, abs(b.masked - c.masked))
        return _figures(baseline, candidate, math.inf, None, math.nan, None, mismatched=apart)
    error = _at_least(_squares(baseline, candidate), b, c)
    if error.value == 0 and b == c:  # zeros of either sign, or the same numbers in another dtype
        return equal(baseline)
    correlation = _one_minus_r(baseline, candidate, n)
    return _figures(
        baseline,
        candidate,
        error.value,
        error,
        math.nan if correlation is None else correlation.value,
        correlation,
    )


# By how many roundoffs, relative to a tensor's length, the rounding of its sums may be off.
_SLACK = 128 * 2.0**-53


def _squares(baseline: Summary, candidate: Summary) -> Estimate:
    """The difference's sum of squares from its sketch, or, where most of it is an offset, from its mean and the rest.

    Sums tell the mean of a difference, but for their rounding, if nothing is masked.
    """
    b, c = baseline.moments, candidate.moments
    n, sketch = b.numbers, candidate.sketch - baseline.sketch
    whole = squares(sketch, n)
    if b.masked:
        return whole
    mean = (c.total - b.total) / n
    part, slack = abs(mean) * math.sqrt(n), _SLACK * _length(b, c)
    rest = squares(sketch - mean * of_ones(n), n)
    told = Estimate(
        rest.value + part**2,
        rest.low + max(0.0, part - slack) ** 2,
        rest.high + (part + slack) ** 2,
    )
    better = part**2 > rest.value and told.high - told.low < whole.high - whole.low
    return told if better else whole


def _length(b: Moments, c: Moments) -> float:
    return math.sqrt(b.squares) + math.sqrt(c.squares)


def _at_least(error: Estimate, b: Moments, c: Moments) -> Estimate:
    """An estimated sum of squares, at least what sums of the two tensors prove, whatever its signs have hidden.

    By Cauchy and Schwarz |sum w d|^2 <= sum w^2 sum d^2: for weights of 1, and for those of the weighted sum.
    """
    apart = max(abs(c.total - b.total), abs(c.weighted - b.weighted)) / math.sqrt(max(1, b.numbers))
    proved = max(0.0, apart - _SLACK * _length(b, c)) ** 2
    return Estimate(max(error.value, proved), max(error.low, proved), max(error.high, proved))


def equal(summary: Summary) -> Comparison:
    """What is said of two tensors of which nothing differs."""
    moments = summary.moments
    spread = moments.squares - moments.total * (moments.total / max(1, moments.numbers - moments.masked))
    constant = not spread > 1e-12 * moments.squares
    return Comparison(
        mse=0.0 if moments.numbers else math.nan,
        pearson=math.nan if constant else 1.0,
        one_minus_pearson=math.nan if constant else 0.0,
        cosine=1.0 if moments.squares else math.nan,
        nrmse=0.0 if moments.numbers else math.nan,
        sqnr_db=math.inf if moments.numbers else math.nan,
        max_abs=0.0,
        max_abs_index=None,
        max_rel=0.0,
        nonfinite_baseline=moments.masked,
        nonfinite_candidate=moments.masked,
        elements=moments.numbers,
    )


def _figures(
    baseline: Summary,
    candidate: Summary,
    error: float,
    known: Estimate | None,
    one_minus_r: float,
    correlation: Estimate | None,
    *,
    mismatched: int = 0,
) -> Comparison:
    b, c = baseline.moments, candidate.moments
    n = max(1, b.numbers - b.masked)
    relative = math.sqrt(error / b.squares) if b.squares > 0 else math.inf
    lengths = math.sqrt(b.squares) * math.sqrt(c.squares)
    cosine = (b.squares + c.squares - error) / 2 / lengths if lengths and math.isfinite(error) else math.nan
    interval = None
    if known is not None:
        root = known.scaled(1 / b.squares).root if b.squares > 0 else Estimate(relative, math.inf, math.inf)
        mse = known.scaled(1 / n)
        interval = Interval(
            mse=(mse.low, mse.high),
            nrmse=(root.low, root.high),
            one_minus_pearson=None if correlation is None else (correlation.low, correlation.high),
        )
    return Comparison(
        mse=error / n,
        pearson=1 - one_minus_r,
        one_minus_pearson=one_minus_r,
        cosine=max(-1.0, min(1.0, cosine)),
        nrmse=relative,
        sqnr_db=-20 * math.log10(relative) if relative > 0 else math.inf,
        max_abs=math.inf if mismatched else math.nan,
        max_abs_index=None,
        max_rel=math.inf if mismatched else math.nan,
        nonfinite_baseline=b.masked,
        nonfinite_candidate=c.masked,
        nonfinite_mismatched=mismatched,
        elements=b.numbers,
        interval=interval,
    )


def _one_minus_r(baseline: Summary, candidate: Summary, n: int) -> Estimate | None:
    """1 - r as half the mean square of the difference of both tensors, brought to mean 0 and spread 1.

    None where that is not known: a tensor is constant, or numbers are masked (a mean's sketch needs all ones).
    """
    if baseline.moments.masked or n < 2:
        return None
    z = np.zeros(BUCKETS)
    means = 0.0
    for summary, sign in ((baseline, 1.0), (candidate, -1.0)):
        moments = summary.moments
        mean = moments.total / n
        variance = moments.squares / n - mean * mean
        if not variance > 1e-12 * moments.squares / n:
            return None
        z += (sign / math.sqrt(variance)) * summary.sketch
        means += sign * mean / math.sqrt(variance)
    return squares(z - means * of_ones(n), n).scaled(1 / (2 * n))


def _plain(tensor: Tensor) -> Tensor:
    return dense(tensor.detach()).resolve_conj().resolve_neg()


def _codes(values: Tensor) -> Tensor:
    """1 for NaN, 2 and 3 for what stands for infinity and minus infinity, 0 for every other number; uint8."""
    found = torch.zeros(len(values), dtype=torch.uint8, device=values.device)
    found[values >= MASK] = 2
    found[values <= -MASK] = 3
    found[values.isnan()] = 1
    return found


def _histogram(samples: list[Tensor], low: float, high: float) -> Array:
    sample = torch.cat(samples) if samples else torch.empty(0)
    if not (low < high and math.isfinite(high - low)):
        counts = np.zeros(BINS, dtype=np.int64)
        counts[0] = len(sample)
        return counts
    place = ((sample.double().cpu() - low) * (BINS / (high - low))).long().clamp(0, BINS - 1)
    return torch.bincount(place, minlength=BINS).numpy()


__all__ = ["BINS", "MOMENTS", "PIECE", "Moments", "Summary", "bits_of", "compared", "summarise"]
