"""The records a comparison of initial values ends in. Frozen, and free of tensors."""

from __future__ import annotations

import enum

from verifier.records import Environment, Record, Verdict

SCHEMA_VERSION = 1


class TensorStanding(enum.StrEnum):
    """How a candidate's tensor stands to the baseline's it belongs to.

    `identical`: the same bits from the same seed. `same-distribution`: other numbers, and no test tells their
    distribution from the expected one. `diverged`: they are not from it. `untold`: other numbers, and too few of
    them to say more. `unmatched`: the tensor has no partner in the other model.
    """

    IDENTICAL = "identical"
    SAME_DISTRIBUTION = "same-distribution"
    DIVERGED = "diverged"
    UNTOLD = "untold"
    UNMATCHED = "unmatched"


class Statistics(Record, frozen=True, kw_only=True):
    """What was measured of one tensor, over all draws: mean, standard deviation and extremes in its own unit.

    `kurtosis` is the fourth central moment in units of the squared variance (3 for a normal distribution, 1.8 for a
    uniform one); None where all values are equal.
    """

    values: int
    mean: float
    std: float
    kurtosis: float | None
    smallest: float
    largest: float


class Test(Record, frozen=True, kw_only=True):
    """One statistical test: its name, its statistic, and how likely one at least as extreme is by chance alone.

    `against` is `declared`, for the documented distribution, or `baseline`, for the baseline's values.
    """

    name: str
    statistic: float
    p_value: float
    against: str = ""


class TensorResult(Record, frozen=True, kw_only=True):
    """One row of the answer: a candidate's tensor and the baseline's it corresponds to.

    `baseline` is how it is made from the baseline's tensors, as a parameter map says it; None for a tensor without a
    partner. `declared` is the distribution the baseline's initialisation is documented to draw from, in words, and
    `source` where; both are empty where that is not known, or where the baseline's own values contradict it
    (`contradicted`): the expected distribution is then the one of the baseline's values. `p_value` is the smallest of
    the row's tests, or the larger of the smallest against the documented distribution and the smallest against the
    baseline's values where there are both, corrected for all tests of all rows (Holm); None where nothing was tested.
    `explanation` is what the values do look like.
    """

    candidate: str | None
    baseline: str | tuple[str, ...] | None
    shape: tuple[int, ...]
    standing: TensorStanding
    reason: str = ""
    declared: str = ""
    source: str = ""
    contradicted: str = ""
    expected: Statistics | None = None
    measured: Statistics | None = None
    tests: tuple[Test, ...] = ()
    p_value: float | None = None
    explanation: str = ""


class Initialisation(Record, frozen=True, kw_only=True):
    """Whether two models start from the same values, or from the same distributions.

    `error_rate` is the chance that any tensor at all is called diverged although every one of them is from its
    distribution. `draws` counts how often each model was built for the tests (0 where all bits agree).
    """

    verdict: Verdict
    reason: str
    baseline: str
    candidate: str
    seed: int
    draws: int
    error_rate: float
    tensors: tuple[TensorResult, ...]
    notes: tuple[str, ...] = ()
    environment: Environment
    command: str = ""
    seconds: float = 0.0
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def diverged(self) -> tuple[TensorResult, ...]:
        """The tensors that are not from the expected distribution, in the candidate's order."""
        return tuple(each for each in self.tensors if each.standing is TensorStanding.DIVERGED)

    def count(self, standing: TensorStanding) -> int:
        """How many tensors stand so."""
        return sum(each.standing is standing for each in self.tensors)
