"""The published acceptance criteria, always evaluated, never enough; and a policy's budgets of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.result import TASK, Criterion, OutputAgreement, PairResult

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
    if policy.task_decides and output is not None:
        found += _of_task(policy, output)
    return tuple(found)


def deciding(policy: Policy, criteria: Iterable[Criterion]) -> list[Criterion]:
    """Those of the criteria that give the verdict by this policy: the published ones, those of the task, or none."""
    return [
        each for each in criteria if (policy.task_decides if each.source == TASK else policy.criteria_decide)
    ]


def _of_task(policy: Policy, output: OutputAgreement) -> list[Criterion]:
    """What the difference does to the classes against what the policy allows; nothing where there are no scores."""
    top1, kl, logits = output.top1_agreement, output.kl_mean, output.largest_logit_error
    if top1 is None or kl is None or logits is None:
        return []
    return [
        Criterion(
            name=name,
            value=value,
            comparison=comparison,
            limit=limit,
            passed=value >= limit if comparison == ">=" else value <= limit,
            source=TASK,
        )
        for name, value, comparison, limit in (
            ("top-1 agreement", top1, ">=", policy.top1_agreement),
            ("mean KL divergence of the classes", kl, "<=", policy.kl_mean),
            ("largest logit error", logits, "<=", policy.logit_error),
        )
    ]


def _below(name: str, value: float, limit: float) -> Criterion:
    return Criterion(name=name, value=value, comparison="<", limit=limit, passed=value < limit, source=SOURCE)
