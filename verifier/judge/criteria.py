"""The published acceptance criteria, always evaluated, never enough; and a policy's budgets of the task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.records import TASK, Criterion, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.judge.policy import Policy
    from verifier.records import CellResult, OutputAgreement, PairResult

# "ResNet18 from scratch in PyTorch: complete reproduction and verification of consistent results", section 4.3.
OUTPUT = "output MSE"
SOURCE = "published acceptance criteria for a re-implemented ResNet-18, float32"


def evaluate(
    policy: Policy,
    output: OutputAgreement | None,
    layers: Iterable[PairResult],
    cells: Iterable[CellResult] = (),
) -> tuple[Criterion, ...]:
    """Each criterion with what was measured for it. What is NaN does not pass; what both lack is not evaluated.

    Nothing found in a picture has no error, and class probabilities that are constant on both sides have no
    correlation.

    Args:
        policy: The limits.
        output: The agreement of the final outputs in the first numerics cell, which the published criteria are for.
        layers: The pairs of that cell.
        cells: All cells; those of numerics that ran are held to the budgets of the task, each by its own outputs.
    """
    found = []
    layers = list(layers)
    told = [
        layer.total.mse
        for layer in layers
        if layer.total is not None and layer.total.elements > layer.total.nonfinite_baseline
    ]
    if output is not None and told:
        if not math.isnan(
            output.mse
        ):  # what disagrees about a NaN is infinite: there is no number in any output
            found.append(_below(OUTPUT, output.mse, policy.output_mse))
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
    if policy.task_decides:
        for cell in judged_by_task(cells):
            found += _of_task(policy, cell)
    return tuple(found)


def judged_by_task(cells: Iterable[CellResult]) -> list[CellResult]:
    """The cells that are held to the budgets of the task: those of numerics that ran, else whatever ran."""
    ran = [cell for cell in cells if cell.verdict is not Verdict.SKIPPED]
    return [cell for cell in ran if cell.role == "numerics"] or ran


def deciding(policy: Policy, criteria: Iterable[Criterion]) -> list[Criterion]:
    """Those of the criteria that give the verdict by this policy: the published ones, those of the task, or none."""
    return [
        each for each in criteria if (policy.task_decides if each.source == TASK else policy.criteria_decide)
    ]


def _of_task(policy: Policy, cell: CellResult) -> list[Criterion]:
    """What the difference does to the classes against what the policy allows; nothing where there are no scores."""
    output = cell.output
    if output is None:
        return []
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
            cell=cell.name,
        )
        for name, value, comparison, limit in (
            ("top-1 agreement", top1, ">=", policy.top1_agreement),
            ("mean KL divergence of the classes", kl, "<=", policy.kl_mean),
            ("largest logit error", logits, "<=", policy.logit_error),
        )
    ]


def _below(name: str, value: float, limit: float) -> Criterion:
    return Criterion(name=name, value=value, comparison="<", limit=limit, passed=value < limit, source=SOURCE)
