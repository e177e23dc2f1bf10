"""Words and numbers that every report shares: the verdict in one sentence, a site's error in another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.result import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.result import Cause, CellResult, Comparison, Coverage, Criterion, PairResult, Verification

METRICS = {
    "cosine": "cosine similarity",
    "max_abs": "largest absolute difference",
    "max_rel": "largest relative difference",
    "mse": "mean squared error",
    "nrmse": "relative error",
    "one_minus_pearson": "1 - Pearson correlation",
    "pearson": "Pearson correlation",
    "sqnr_db": "signal to noise in dB",
}

DEFAULT_METRIC = "nrmse"


def headline(verification: Verification) -> str:
    """The verdict and what it rests on, in one sentence."""
    if verification.verdict is Verdict.MATCH:
        said = _agreement(verification)
    elif verification.verdict is Verdict.DIVERGED and verification.first_divergence is not None:
        said = _divergence(verification, verification.first_divergence)
    else:
        said = verification.reason or "no reason was recorded"
    return f"{verification.verdict}: {said}"


def site(pair: PairResult) -> str:
    """The pair's name: the baseline's, and the candidate's where it has another or there is no partner."""
    if pair.baseline is None:
        return f"{visible(pair.candidate or 'unnamed')} (candidate only)"
    if pair.candidate is None:
        return f"{visible(pair.baseline)} (baseline only)"
    if pair.candidate == pair.baseline:
        return visible(pair.baseline)
    return f"{visible(pair.baseline)} (candidate: {visible(pair.candidate)})"


def divergence(pair: PairResult) -> str:
    """Where a pair first left its budget, how far, and what was allowed."""
    return f"{site(pair)}, {visible(pair.op)}: {_measured(pair, pair.total)}{_allowed(pair, 'total')}"


def blame(pair: PairResult) -> str:
    """What a culprit does on identical inputs, what was allowed, and its cause as far as known."""
    said = f"{site(pair)}, {visible(pair.op)}: {_measured(pair, pair.intrinsic)} on identical inputs"
    return f"{said}{_allowed(pair, 'intrinsic')}{_because(pair.cause)}"


def criterion(each: Criterion) -> str:
    """A published criterion with the number measured for it."""
    outcome = "passed" if each.passed else "failed"
    required = f"{visible(each.comparison)} {figure(each.limit)}"
    return f"{outcome}: {visible(each.name)} is {figure(each.value)}, required {required}"


def coverage(covered: Coverage) -> str:
    """How much of both models was compared."""
    return (
        f"{counted(covered.compared, 'pair')} compared: {share(covered.baseline_share)} of the baseline's "
        f"{counted(covered.baseline_sites, 'site')} and {share(covered.candidate_share)} of the candidate's "
        f"{covered.candidate_sites}"
    )


def deciding_cell(verification: Verification) -> CellResult | None:
    """The cell whose numbers a report shows first, or None where nothing ran."""
    return verification.deciding_cell if verification.cells else None


def error(comparison: Comparison | None, metric: str = DEFAULT_METRIC) -> float:
    """The comparison's value of a metric; NaN where it was not measured or the metric is unknown."""
    value = getattr(comparison, metric, None)
    return float(value) if isinstance(value, int | float) else math.nan


def worst(pairs: Iterable[PairResult], count: int) -> list[PairResult]:
    """The `count` measured pairs with the largest total error, NaN first, in falling order."""
    measured = [pair for pair in pairs if pair.total is not None]
    return sorted(measured, key=lambda pair: (-_severity(pair), pair.index))[:count]


def metric_of(pair: PairResult) -> str:
    """The metric the pair was judged by."""
    return pair.budget.metric if pair.budget else DEFAULT_METRIC


def figure(value: float | None) -> str:
    """Three significant digits; near 1 as many more as tell it from 1; a dash for what was not measured."""
    if value is None:
        return "-"
    distance = 1 - abs(value)
    if 0 < distance < 0.1:
        decimals = min(15, 2 - math.floor(math.log10(distance)))
        return f"{value:.{decimals}f}".rstrip("0")
    return f"{value:.3g}"


def share(value: float) -> str:
    """A share in percent, rounded towards zero: 100 % means all."""
    if not math.isfinite(value):
        return figure(value)
    return f"{math.floor(value * 1000) / 10:g} %"


def counted(count: int, noun: str) -> str:
    """`1 site`, `2 sites`, `25,557,032 parameters`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def dimensions(shape: Iterable[int]) -> str:
    """`8 x 64 x 56 x 56`."""
    return " x ".join(map(str, shape)) or "scalar"


def visible(text: str) -> str:
    """The text with control characters spelt out: a layer's name must not be able to drive a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _severity(pair: PairResult) -> float:
    value = error(pair.total)
    return math.inf if math.isnan(value) else value


def _agreement(verification: Verification) -> str:
    cell = deciding_cell(verification)
    pairs = cell.layers if cell else ()
    agreeing = sum(pair.status is Status.OK for pair in pairs)
    said = f"{agreeing} of {counted(max(verification.coverage.baseline_sites, agreeing), 'site')} agree"
    largest = next(iter(worst(pairs, 1)), None)
    if largest is None:
        return said
    return f"{said}; largest relative error {figure(error(largest.total))} at {site(largest)}"


def _divergence(verification: Verification, first: PairResult) -> str:
    comparison, limit = (first.total, "total") if first.total else (first.intrinsic, "intrinsic")
    said = (
        f"{site(first)} is the first site beyond its budget "
        f"({_measured(first, comparison)}{_allowed(first, limit)})"
    )
    cell = deciding_cell(verification)
    followers = sum(pair.status in (Status.CARRIES, Status.AMPLIFIES) for pair in cell.layers) if cell else 0
    culprits = len(verification.culprits)
    if not culprits:
        return f"{said}; no site exceeds its budget alone"
    said = f"{said}; {counted(culprits, 'culprit')}"
    if not followers:
        return said
    return (
        f"{said}, {counted(followers, 'other site')} {'carries' if followers == 1 else 'carry'} what came in"
    )


def _measured(pair: PairResult, comparison: Comparison | None) -> str:
    if comparison is None:
        return "not measured"
    metric = metric_of(pair)
    said = f"{METRICS.get(metric, visible(metric))} {figure(error(comparison, metric))}"
    if comparison.nonfinite_mismatched:
        said += f", {counted(comparison.nonfinite_mismatched, 'value')} not finite in one model only"
    return said


def _allowed(pair: PairResult, kind: str) -> str:
    if pair.budget is None:
        return ""
    limit = pair.budget.total if kind == "total" else pair.budget.intrinsic
    return f", allowed {figure(limit)}, rule {visible(pair.budget.rule)}"


def _because(cause: Cause | None) -> str:
    if cause is None:
        return ""
    return f"; {'confirmed' if cause.confirmed else 'suspected'} cause: {visible(cause.summary)}"
