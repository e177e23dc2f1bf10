"""Policies: what a pair may be off by, as data with reasons."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from verifier.border import toml
from verifier.errors import UsageError
from verifier.records import Budget

_SHARES = frozenset({"minimum_coverage", "pearson_probabilities", "top1_agreement"})


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The constants every verdict rests on.

    Attributes:
        name: How verdicts and reports call it.
        semantics: Relative error (NRMSE) that is a real difference in float64. One rounding is 1.1e-16 there and
            the longest sums of the networks at hand (4,608 products) stay below 1e-14, while an epsilon
            changed in its third digit moves a batch norm by more than 1e-10.
        factor: How many times the baseline's own rounding error a difference between the two models may be.
            Two correct implementations differ by at most the sum of their errors, so by 2 if they are equally
            accurate; the rest is room for another summation order.
        floor: Unit roundoffs that are always allowed, for sites where the baseline happens to be exact.
        accuracy: How many times further than the baseline the candidate may be from exact arithmetic at one step.
            Rewriting an operator in the cell's dtype adds roundings: a layer norm by hand (five) is 2.5 times as far
            as the fused one, which rounds once. The benign rewrites this was calibrated on stay below 1.1 unit
            roundoffs in half precision; sums and scales kept in half precision reach 1.6 to 1.9.
        accuracy_total: The same for what errors add up to, which is a matter of luck too: the benign rewrites
            reach 2.2.
        accuracy_floor: Unit roundoffs that are allowed on top: one more rounding.
        systematic: Unit roundoffs by which gains and offsets of whole channels may be wrong in half precision, on
            top of twice the baseline's; a rounded scale is wrong by 0.42, the benign rewrites by up to 0.26.
        summation: Unit roundoffs of the accumulator, times the root of the number of terms, that are allowed on
            top: what adding n terms of either sign one by one costs is 0.3 sqrt(n) (`SUMMATION`), and blocked
            sums cost less.
        hardware: How many times what rounding explains the baseline's single steps may be from exact arithmetic
            before the device is said to compute otherwise. Measured on an H200, ResNet-50 in 14 cells: at most 1.75
            times, where autocast rounds operands as well as results.
        minimum_coverage: Share of the sites of either model that must be paired to call a match.
        criteria_decide: Whether the published criteria give the verdict instead of the budgets.
        output_mse: Published: largest mean squared error of the output.
        pearson_probabilities: Published: smallest correlation of the class probabilities.
        layer_mse: Published: largest mean squared error of any layer.
        task_decides: Whether what the difference does to the classes gives the verdict instead of the budgets: for
            a candidate that is another function on purpose, pruned or quantised. What the three below allow of the
            final class scores is then evaluated.
        top1_agreement: Smallest share of samples with the same highest class.
        kl_mean: Largest Kullback-Leibler divergence of the class probabilities in nats, in the mean over samples.
        logit_error: Largest difference of any logit.
    """

    name: str = "strict"
    semantics: float = 1e-12
    factor: float = 8.0
    floor: float = 8.0
    accuracy: float = 2.0
    accuracy_total: float = 4.0
    accuracy_floor: float = 0.5
    systematic: float = 0.3
    summation: float = 0.3
    hardware: float = 4.0
    minimum_coverage: float = 0.5
    criteria_decide: bool = False
    output_mse: float = 1e-6
    pearson_probabilities: float = 0.999
    layer_mse: float = 1e-5
    task_decides: bool = False
    top1_agreement: float = 0.95
    kl_mean: float = 0.01
    logit_error: float = 1.0

    def __post_init__(self) -> None:
        """See that every tolerance is one: NaN or less than nothing would let everything pass, or nothing.

        Raises:
            ValueError: One is not.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, float | int):
                continue
            most = 1.0 if name in _SHARES else math.inf
            if not 0 <= value <= most or math.isinf(value):
                allowed = (
                    "a share, from 0 to 1" if name in _SHARES else "a finite number that is not negative"
                )
                raise ValueError(f"{name} is {value}, but has to be {allowed}")

    @classmethod
    def load(cls, text: str) -> Policy:
        """A policy by name, or from a TOML file whose keys are this record's attributes.

        Raises:
            UsageError: There is no such policy or file, or the file says what no policy says.
        """
        if text in NAMED:
            return NAMED[text]
        path = Path(text)
        if not path.is_file():
            raise UsageError(f"--policy {text}: there is no such file. Use {_listed()} or a TOML file.")
        content = toml.read(path, f"--policy {text}", UsageError)
        try:
            return msgspec.convert({"name": path.name, **content}, cls)
        except msgspec.ValidationError as error:
            raise UsageError(f"--policy {text}: {str(error).replace('`$.', '`')}.") from error


STRICT = Policy()
CRITERIA = Policy(name="criteria", criteria_decide=True)
TASK = Policy(name="task", task_decides=True)

# For networks with random weights, whose thousand logits have a standard deviation of 0.7 and best and
# second-best lie 0.005 apart in some samples: a flip there is chance, and the divergence tells more. Measured
# on eight images of 64 x 64 with calibrated weights of three seeds, ResNet-18: without a tenth of its weights
# 0.0021 to 0.0027 nats, in eight bits 0.0005; a missing ReLU, a norm without its running mean or eight dead
# channels add 0.005 to 0.017. Ten other seeds, looked at afterwards: all 20 compressed networks keep within the
# budgets, and none of 60 with one of these faults does.
PRUNED = Policy(name="pruned", task_decides=True, top1_agreement=0.5, kl_mean=0.004, logit_error=0.6)
INT8 = Policy(name="int8", task_decides=True, top1_agreement=0.5, kl_mean=0.001, logit_error=0.25)
NAMED = {policy.name: policy for policy in (STRICT, CRITERIA, TASK, PRUNED, INT8)}

DOUBLE_ROUNDOFF = 2.0**-53
SINGLE_ROUNDOFF = 2.0**-24

# The root mean square of the relative error of one rounding, in unit roundoffs: the error is uniform in half a unit
# in the last place either way, 1 / sqrt(3) of it in the mean, and the mantissa m in [1, 2) has the density
# 1 / (m ln 2) (Benford's law; Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 2.7), so
# the mean of 1 / m^2 is 3 / (8 ln 2).
ROUNDING = math.sqrt(3 / (8 * math.log(2)) / 3)

# Adding n independent terms of spread s one by one rounds partial sums of size s sqrt(i): in all, relative to the
# result of size s sqrt(n), ROUNDING sqrt(n / 2) roundoffs. The rule that errors grow with the root of n: Higham and
# Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019.
SUMMATION = ROUNDING / math.sqrt(2)


def arithmetic(policy: Policy, unit_roundoff: float, reduction: int) -> float:
    """How far one step may be from exact arithmetic (NRMSE) if it only rounds, as the cell's dtype does.

    Args:
        policy: The constants.
        unit_roundoff: The cell's.
        reduction: How many terms are summed for one element; half precisions are summed in float32.
    """
    summing = SUMMATION * min(unit_roundoff, SINGLE_ROUNDOFF) * math.sqrt(reduction)
    return policy.hardware * (ROUNDING * unit_roundoff + summing)


def semantics_budget(policy: Policy, amplification: float) -> Budget:
    """What a pair may be off by in float64.

    Args:
        policy: The constants.
        amplification: The baseline's own total error at this pair in unit roundoffs of the dtype it was
            measured in: how much the network amplifies rounding. The same multiple of float64's unit roundoff
            is allowed.
    """
    return Budget(
        rule="semantics/float64",
        total=max(policy.semantics, policy.factor * amplification * DOUBLE_ROUNDOFF),
        intrinsic=policy.semantics,
        noise_total=amplification * DOUBLE_ROUNDOFF,
    )


def numerics_budget(
    policy: Policy,
    dtype: str,
    unit_roundoff: float,
    noise_total: float | None,
    noise_intrinsic: float | None,
    noise_systematic: float | None = None,
    reduction: int = 1,
    accumulated: int | None = None,
) -> Budget:
    """What a pair may be off by in a lower precision: a multiple of the baseline's own distance from float64.

    Args:
        policy: The constants.
        dtype: The cell's, for the rule's name.
        unit_roundoff: The cell's.
        noise_total: The baseline's total distance (NRMSE) from the oracle.
        noise_intrinsic: What this one step adds to it; no step is asked to be better than one rounding.
        noise_systematic: The part of that which is the same in all samples.
        reduction: How many terms are summed for one element; half precisions are summed in float32.
        accumulated: The same for the longest sum here or above, whose rounding errors have come along; None for
            `reduction`.
    """
    floor = policy.floor * unit_roundoff
    adding = policy.summation * min(unit_roundoff, SINGLE_ROUNDOFF)
    summing = adding * math.sqrt(reduction)
    spare = policy.accuracy_floor * unit_roundoff + summing
    longest = reduction if accumulated is None else accumulated
    spare_total = policy.accuracy_floor * unit_roundoff + adding * math.sqrt(longest)
    return Budget(
        rule=f"rounding/{dtype}",
        total=policy.factor * (noise_total or 0.0) + floor,
        intrinsic=policy.factor * (noise_intrinsic or 0.0) + floor,
        noise_total=noise_total,
        noise_intrinsic=noise_intrinsic,
        oracle_total=(
            None
            if noise_total is None
            else policy.accuracy_total * max(noise_total, ROUNDING * unit_roundoff) + spare_total
        ),
        oracle_intrinsic=(
            None
            if noise_intrinsic is None
            else policy.accuracy * max(noise_intrinsic, ROUNDING * unit_roundoff) + spare
        ),
        oracle_systematic=(
            None
            if noise_systematic is None
            else policy.accuracy * noise_systematic + policy.systematic * unit_roundoff + summing
        ),
        reduction=reduction,
        accumulated=accumulated,
    )


def _listed() -> str:
    return ", ".join(NAMED)
