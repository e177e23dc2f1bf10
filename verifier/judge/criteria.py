"""The published acceptance criteria: always evaluated, never enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.result import Criterion, OutputAgreement, PairResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.judge.policy import Policy

# "ResNet18 from scratch in PyTorch: complete reproduction and verification of consistent results", section 4.3.
SOURCE = "published acceptance criteria for a re-implemented ResNet-18, float32"


def evaluate(
    policy: Policy, output: OutputAgreement | None, layers: Iterable[PairResult]
) -> tuple[Criterion, ...]:
    """Each criterion with what was measured in the first numerics cell. What is NaN does not pass."""
    found = []
    layers = list(layers)
    told = [
        layer.total.mse
        for layer in layers
        if layer.total is not None and layer.total.elements > layer.total.nonfinite_baseline
    ]
    if output is not None and told:
        found.append(_below("output MSE", output.mse, policy.output_mse))
        if output.pearson_probabilities is not None:
            value = output.pearson_probabilities
            found.append(
                Criterion(
                    name="Pearson of class probabilities",
                    value=value,
                    comparison=">",
                    limit=policy.pearson_probabilities,
                    passed=value > policy.pearson_probabilities,
                    source=SOURCE,
                )
            )
    if told:
        # max() is blind to NaN
        worst = float("nan") if any(mse != mse for mse in told) else max(told)  # noqa: PLR0124
        found.append(_below("largest layer MSE", worst, policy.layer_mse))
    return tuple(found)


def _below(name: str, value: float, limit: float) -> Criterion:
    return Criterion(name=name, value=value, comparison="<", limit=limit, passed=value < limit, source=SOURCE)
