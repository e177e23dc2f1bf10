"""Criteria of outputs that hold no numbers, none that are finite, or what was found in a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from verifier import verify
from verifier.judge import CRITERIA, STRICT

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification

NAN, INF = float("nan"), float("inf")


class Head(nn.Module):
    def __init__(self, ending: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.ending = nn.Linear(6, 4), ending

    def forward(self, x: Tensor) -> Any:
        return self.ending(self.linear(x))


def compared(
    baseline: Callable[[Tensor], Any], candidate: Callable[[Tensor], Any] | None = None, **options: Any
) -> Verification:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    return verify(Head(baseline).eval(), Head(candidate or baseline).eval(), x, **options)


def at(column: int, value: float) -> Callable[[Tensor], Tensor]:
    return lambda y: y.masked_fill(torch.arange(4) == column, value)


ALIKE: dict[str, Callable[[Tensor], Any]] = {
    "nothing found": lambda y: y[:0],
    "nothing found beside a number": lambda y: {"boxes": y[:0], "labels": y[:0].argmax(1), "sum": y.sum()},
    "a class that is NaN": at(1, NAN),
    "a class that is infinite": at(1, INF),
    "a class that is hidden": at(1, -INF),
    "constant": lambda y: y * 0,
}


@pytest.mark.parametrize("ending", ALIKE.values(), ids=ALIKE)
def test_no_criterion_fails_for_a_nan_beside_a_match(ending: Callable[[Tensor], Any]) -> None:
    found = compared(ending)
    assert found.verdict == "match"
    assert [each.name for each in found.criteria if not each.passed] == []
    assert "largest layer MSE" in [each.name for each in found.criteria]


@pytest.mark.parametrize("broken", [at(1, NAN), at(1, INF), lambda y: y * 0], ids=["nan", "inf", "constant"])
def test_what_one_side_alone_lacks_fails(broken: Callable[[Tensor], Any]) -> None:
    for sides in ((at(1, 0.5), broken), (broken, at(1, 0.5))):
        for policy in (STRICT, CRITERIA):
            found = compared(*sides, policy=policy)
            assert found.verdict == "diverged"
            failed = {each.name for each in found.criteria if not each.passed}
            assert {"output MSE", "Pearson of class probabilities"} <= failed


def test_the_published_criteria_alone_make_no_match_of_outputs_without_numbers() -> None:
    found = compared(lambda y: y[:0], policy=CRITERIA)
    assert (found.verdict, found.reason) == (
        "inconclusive",
        "no number is returned to hold the published criteria against",
    )
    assert compared(lambda y: y * NAN, policy=CRITERIA).verdict == "inconclusive"


# --- what is found in a picture


def detections(y: Tensor, *, overlap: float = 0.5, scale: float = 10.0, first: int = 0) -> dict[str, Tensor]:
    """Boxes, labels and scores as torchvision's detectors return them, most of them on top of another."""
    corner = y.abs().repeat_interleave(4, 0)[:, :2] + torch.arange(12).remainder(4)[:, None] * 2
    boxes = torch.cat([corner, corner + scale], 1)
    scores, labels = y.repeat_interleave(4, 0).softmax(1).max(1)
    kept = batched_nms(boxes, scores, labels, overlap)
    return {"boxes": boxes[kept], "labels": labels[kept] + first, "scores": scores[kept]}


def test_boxes_labels_and_scores_are_compared_and_are_no_class_scores() -> None:
    found = compared(detections)
    assert found.verdict == "match"
    assert [each.name for each in found.criteria] == ["output MSE", "largest layer MSE"]
    assert found.output is not None
    assert found.output.top1_agreement is None


@pytest.mark.parametrize("fault", [{"overlap": 0.3}, {"scale": 11.0}, {"first": 1}], ids=str)
def test_a_fault_in_what_makes_detections_is_found(fault: dict[str, float]) -> None:
    found = compared(detections, lambda y: detections(y, **fault))  # type: ignore[arg-type]
    assert found.verdict == "diverged"
    assert found.culprits


def test_a_number_of_things_that_depends_on_what_differs_is_judged() -> None:
    def ending(y: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        scaled = y * factor
        kept = scaled[scaled > 0]
        return y.sum(), kept > 0

    assert compared(ending, lambda y: ending(y, 1.5)).verdict == "diverged"
