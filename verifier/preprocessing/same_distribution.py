"""Are two samples of one distribution? Exact for heads and tails, else by two tests, at one tiny rate in all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RATE = 1e-6  # how often samples of one distribution may be taken for two, over all tests of one comparison
_BINS = 16


class Refuted(NamedTuple):
    """The test that says most clearly that two samples are of two distributions."""

    parameter: str
    test: str
    p: float


def refuted(
    candidate: Mapping[str, Sequence[float]],
    baseline: Mapping[str, Sequence[float]],
    tests: int,
    *,
    independent: bool = True,
) -> Refuted | None:
    """The clearest of all parameters' differences, if any is beyond `RATE` of all `tests` (Bonferroni's bound).

    `independent` says that the baseline draws the parameters independently of each other; then the candidate's have
    to be that too.
    """
    found = [
        Refuted(name, *each)
        for name, values in candidate.items()
        for each in _tests(np.asarray(values, float), np.asarray(baseline[name], float))
    ]
    names = list(candidate)
    if independent:
        found += [
            Refuted(
                f"{one} with {other}",
                "Spearman's rank correlation",
                _together(candidate[one], candidate[other]),
            )
            for number, one in enumerate(names)
            for other in names[number + 1 :]
        ]
    clearest = min(found, key=lambda each: each.p, default=None)
    return clearest if clearest is not None and clearest.p * tests < RATE else None


def count(parameters: int) -> int:
    """How many tests that many parameters of one stage take at most."""
    return 2 * parameters + parameters * (parameters - 1) // 2


def _tests(candidate: np.ndarray[Any, Any], baseline: np.ndarray[Any, Any]) -> list[tuple[str, float]]:
    distinct = np.unique(baseline)
    if set(distinct) <= {0.0, 1.0} and set(np.unique(candidate)) <= {0.0, 1.0}:
        table = [[int(each.sum()), int(each.size - each.sum())] for each in (candidate, baseline)]
        return [("Fisher's exact test", float(stats.fisher_exact(table).pvalue))]
    smirnov = float(stats.ks_2samp(candidate, baseline, method="asymp").pvalue)
    return [
        ("Kolmogorov's and Smirnov's test", smirnov),
        ("the chi-square test", _by_bins(candidate, baseline, distinct)),
    ]


def _by_bins(
    candidate: np.ndarray[Any, Any], baseline: np.ndarray[Any, Any], distinct: np.ndarray[Any, Any]
) -> float:
    """Homogeneity over as many bins as there are values, or sixteen as full as each other."""
    if distinct.size <= _BINS:
        edges = (distinct[1:] + distinct[:-1]) / 2
    else:
        edges = np.unique(np.quantile(baseline, np.arange(1, _BINS) / _BINS))
    table = np.stack(
        [
            np.bincount(np.searchsorted(edges, each, side="right"), minlength=edges.size + 1)
            for each in (candidate, baseline)
        ]
    )
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _together(one: Sequence[float], other: Sequence[float]) -> float:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return 1.0
    p = float(stats.spearmanr(one, other).pvalue)
    return 1.0 if math.isnan(p) else p
