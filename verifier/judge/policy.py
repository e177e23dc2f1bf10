"""Policies: what a pair may be off by, as data with reasons."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from verifier.errors import UsageError
from verifier.result import Budget


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
        minimum_coverage: Share of the sites of either model that must be paired to call a match.
        criteria_decide: Whether the published criteria give the verdict instead of the budgets.
        output_mse: Published: largest mean squared error of the output.
        pearson_probabilities: Published: smallest correlation of the class probabilities.
        layer_mse: Published: largest mean squared error of any layer.
    """

    name: str = "strict"
    semantics: float = 1e-12
    factor: float = 8.0
    floor: float = 8.0
    minimum_coverage: float = 0.5
    criteria_decide: bool = False
    output_mse: float = 1e-6
    pearson_probabilities: float = 0.999
    layer_mse: float = 1e-5

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
            raise UsageError(f"--policy {text}: there is no such file. Use strict, criteria or a TOML file.")
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
            return msgspec.convert({"name": path.name, **data}, cls, strict=False)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise UsageError(f"--policy {text}: {error}.") from error


STRICT = Policy()
CRITERIA = Policy(name="criteria", criteria_decide=True)
NAMED = {policy.name: policy for policy in (STRICT, CRITERIA)}

DOUBLE_ROUNDOFF = 2.0**-53


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
) -> Budget:
    """What a pair may be off by in a lower precision: a multiple of the baseline's own distance from float64."""
    floor = policy.floor * unit_roundoff
    return Budget(
        rule=f"rounding/{dtype}",
        total=policy.factor * (noise_total or 0.0) + floor,
        intrinsic=policy.factor * (noise_intrinsic or 0.0) + floor,
        noise_total=noise_total,
        noise_intrinsic=noise_intrinsic,
    )
