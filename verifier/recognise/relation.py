"""What is said of how two tensors relate, and the figures it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.metrics import collect, compare, measure
from verifier.recognise.reals import sample_positions

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.recognise.reals import Reals
    from verifier.records import Comparison

# At this share of a tensor's own size, or spread, two are nearly equal; one is clearly nearer than another
# at a tenth of the distance.
NEARLY = 1e-2
CLEARLY = 0.1


@dataclass(frozen=True, slots=True)
class Deviation:
    """How a candidate's tensor relates to the baseline's.

    `kind` is one of `shape, swapped, not-loaded, rounded, scaled, shifted, transposed, permuted, nonfinite,
    partial, perturbed`; `summary` a clause whose subject is the tensor ("is 2 x the baseline's"); `evidence`
    the figures behind it.
    """

    kind: str
    summary: str
    evidence: tuple[str, ...] = ()


def compared(candidate: Tensor, baseline: Tensor) -> Comparison:
    """All metrics of the pair."""
    (moments,) = collect([measure(baseline, candidate)])
    return compare(moments)


def figures(comparison: Comparison) -> tuple[str, ...]:
    """The metrics that tell a stranger how large an error is."""
    told = [
        f"relative L2 error {comparison.nrmse:.3g}",
        f"largest relative difference {comparison.max_rel:.3g}",
    ]
    if not math.isnan(comparison.pearson):
        told.append(f"correlation {comparison.pearson:.6g}")
    return tuple(told)


def constant(tensor: Tensor) -> float | None:
    """The value of all elements, if it is one real number."""
    value = tensor.reshape(-1)[0]
    if not bool((tensor == value).all()):
        return None
    found = complex(value.item())
    return found.real if not found.imag else None


def sample(two: Reals) -> tuple[Tensor, Tensor]:
    """Some elements of both, from the same places."""
    positions = sample_positions(two.baseline.numel(), two.baseline.device)
    return two.candidate.view(-1)[positions], two.baseline.view(-1)[positions]


def counted(two: Reals) -> str:
    """The number of elements, with its unit."""
    count = two.baseline.numel()
    return f"{count} element{'s' if count != 1 else ''}"
