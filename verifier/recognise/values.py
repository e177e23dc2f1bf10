"""How one tensor relates to another: why a parameter or buffer is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from verifier.recognise.axes import as_text, axis_name
from verifier.recognise.permutations import flipped, permuted, transposed
from verifier.recognise.reals import (
    everywhere,
    identical,
    is_simple,
    number,
    reals,
    same,
    sample_positions,
)
from verifier.recognise.relation import (
    CLEARLY,
    NEARLY,
    Deviation,
    compared,
    constant,
    counted,
    figures,
    sample,
)
from verifier.recognise.rounding import FORMATS, rounded_through
from verifier.recognise.shapes import relate_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier.recognise.reals import Reals
    from verifier.records import Comparison

NOTHING: Mapping[str, Tensor] = MappingProxyType({})
LEAST_TO_CORRELATE = 8
FEW_ELEMENTS = 0.1
MOSTLY = 0.75  # of a sample: then more than half of all slices differ
NAMED = 3
SMALLEST = 15


def relate(candidate: Tensor, baseline: Tensor, others: Mapping[str, Tensor] = NOTHING) -> Deviation | None:
    """The most specific relation that holds, or None where both are equal in value (NaN equals NaN).

    Args:
        candidate: Tensor of any dtype, strides and device.
        baseline: What it should be; work is done on its device.
        others: The baseline's other tensors of the same shape by name: the candidate may hold one of those.
    """
    if candidate.shape != baseline.shape:
        return Deviation("shape", *relate_shapes(candidate, baseline))
    two = reals(candidate, baseline)
    if identical(two.candidate, two.baseline):
        return None
    comparison = compared(two.candidate, two.baseline)
    relation = _swapped(two, others, comparison) or _not_loaded(two)
    if relation is None and (relation := _rounded(two)) and constant(two.baseline) is None:
        relation = (
            _scaled(two) or relation
        )  # rounding takes from some and adds to others, and never one share
    if relation is None and two.fits(two.candidate, two.baseline):
        return Deviation("perturbed", "differs in the last digits only", figures(comparison))
    finders = (_scaled, _shifted, transposed, flipped)
    return (
        relation
        or next((found for find in finders if (found := find(two))), None)
        or permuted(two, comparison)
        or _nonfinite(two, comparison)
        or _partial(two)
        or _rounded_and_partial(two)
        or _unrelated(two, comparison)
        or _perturbed(two, comparison)
    )


def _swapped(two: Reals, others: Mapping[str, Tensor], from_baseline: Comparison) -> Deviation | None:
    if constant(two.candidate) is not None:
        return None
    best: tuple[float, str, Comparison] | None = None
    for name, other in others.items():
        if other.shape != two.candidate.shape and not other.is_complex():
            continue
        pair = reals(two.candidate, other)
        if pair.candidate.shape != pair.baseline.shape:
            continue
        some, named = sample(pair)
        spread = float((some - some.mean()).norm())
        if not (identical(some, named) or float((some - named).norm()) <= NEARLY * spread):
            continue
        comparison = compared(pair.candidate, pair.baseline)
        near = comparison.max_abs == 0 or comparison.mse < CLEARLY**2 * from_baseline.mse
        if near and (best is None or comparison.mse < best[0]):
            best = (comparison.mse, name, comparison)
    if best is None:
        return None
    _, name, comparison = best
    if comparison.max_abs == 0:
        return Deviation("swapped", f"is {name}'s instead", (f"equal to {name} in all {counted(two)}",))
    return Deviation("swapped", f"is nearly {name}'s instead", figures(comparison))


def _not_loaded(two: Reals) -> Deviation | None:
    value, expected = constant(two.candidate), constant(two.baseline)
    if value is None:
        return None
    low, high = two.baseline.aminmax()
    evidence = (
        f"the baseline's is {number(expected)}"
        if expected is not None
        else f"the baseline's lies in {float(low):.3g} to {float(high):.3g}",
    )
    if value in (0, 1):
        return Deviation("not-loaded", f"is all {number(value)}, as before loading", evidence)
    if expected is None and two.baseline.numel() >= LEAST_TO_CORRELATE:
        return Deviation("not-loaded", f"is all {number(value)}, as if it had not been loaded", evidence)
    return None


def _rounded(two: Reals) -> Deviation | None:
    for one, other, summary in (
        (two.candidate, two.baseline, "is rounded to {}"),
        (two.baseline, two.candidate, "is not rounded to {} as the baseline's is"),
    ):
        formats = rounded_through(one, other)
        if formats:
            gap = compared(two.candidate, two.baseline)
            also = (f"{' and '.join(formats[1:])} would give the same",) if formats[1:] else ()
            return Deviation("rounded", summary.format(formats[0]), (*figures(gap)[:2], *also))
    return None


def _rounded_and_partial(two: Reals) -> Deviation | None:
    """All rounded to a format of few digits, and beside that equal but for some places."""
    for name in ("float16", "bfloat16"):
        through = FORMATS[name]
        rounded = replace(two, baseline=through(two.baseline))
        if not identical(two.candidate, through(two.candidate)) or two.fits(two.candidate, rounded.baseline):
            continue
        found = _partial(rounded)
        if found is not None:
            return replace(found, summary=f"is rounded to {name} and {found.summary}")
    return None


def _finite(two: Reals) -> tuple[Tensor, Tensor] | None:
    """Both flat, without elements that are not finite; None where the two disagree about those."""
    c, b = two.candidate.view(-1), two.baseline.view(-1)
    finite = b.isfinite()
    if bool(finite.all()) and bool(c.isfinite().all()):
        return c, b
    if not bool((same(c, b) | finite).all()) or not bool(finite.eq(c.isfinite()).all()):
        return None
    return c[finite], b[finite]


def _scaled(two: Reals) -> Deviation | None:
    pair = _finite(two)
    if pair is None:
        return None
    c, b = pair
    some_c, some_b = (tensor[sample_positions(len(b), b.device)].double() for tensor in pair)
    nonzero = some_b.ne(0)
    ratios = some_c[nonzero] / some_b[nonzero]
    if not len(ratios):
        return None
    factor = float(ratios.median())
    if not math.isfinite(factor) or factor == 0 or not two.fits(some_c, some_b * factor):
        return None
    # to the digits of all elements, not of one: the root of the sums of squares has them
    largest = float(b.abs().amax())
    if 1e-100 < largest < 1e100:
        size, expected = (float(tensor.norm(dtype=torch.float64)) for tensor in pair)
        factor = math.copysign(size / expected, factor)
    if not two.fits(c, b * factor):
        return None
    simple = factor == -1 or (len(ratios) > 1 and is_simple(factor))
    if len(ratios) < 3 and not simple:
        return None  # one or two numbers are always a multiple of others
    evidence = (f"factor {factor:.9g}", f"holds for all {counted(two)} to {two.tolerance:.1g}")
    if abs(factor + 1) <= two.tolerance:
        return Deviation("scaled", "has the opposite sign", evidence)
    return Deviation("scaled", f"is {number(factor)} x the baseline's", evidence)


def _shifted(two: Reals) -> Deviation | None:
    pair = _finite(two)
    if pair is None or len(pair[0]) < 3:
        return None
    c, b = pair
    some_c, some_b = (tensor[sample_positions(len(b), b.device)].double() for tensor in pair)
    # the smallest elements keep most digits of what was added to them
    smallest = torch.maximum(some_c.abs(), some_b.abs()).argsort()[:SMALLEST]
    offset = float((some_c - some_b)[smallest].median())

    def holds(one: Tensor, other: Tensor) -> Tensor:
        largest = torch.maximum(one.abs(), other.abs()).clamp_(min=abs(offset))
        return (one.double() - other - offset).abs_() <= largest.mul_(two.tolerance).add_(two.floor)

    if not math.isfinite(offset) or not bool(holds(some_c, some_b).all()):
        return None
    if not everywhere(holds, c, b):
        return None
    sign = "+" if offset > 0 else "-"
    return Deviation(
        "shifted",
        f"is the baseline's {sign} {number(abs(offset))}",
        (f"offset {offset:.9g}", f"holds for all {counted(two)} to {two.tolerance:.1g}"),
    )


def _nonfinite(two: Reals, comparison: Comparison) -> Deviation | None:
    if not comparison.nonfinite_mismatched:
        return None
    count, expected = comparison.nonfinite_candidate, comparison.nonfinite_baseline
    finite = two.candidate.isfinite() & two.baseline.isfinite()
    rest = two.fits(two.candidate[finite], two.baseline[finite])
    return Deviation(
        "nonfinite",
        f"holds {count} NaN or infinite elements, the baseline's {expected or 'none'}",
        (
            f"{comparison.nonfinite_mismatched} of {counted(two)} disagree, first {comparison.max_abs_index}",
            "the rest agrees" if rest else "the rest differs too",
        ),
    )


def _partial(two: Reals) -> Deviation | None:
    """Equal but for a few elements, or for some slices along an axis: the smallest share names the place."""
    rank = two.baseline.ndim
    if rank == 0 or float(two.close(*sample(two)).float().mean()) < 1 - MOSTLY:
        return None
    differs = ~two.close(two.candidate, two.baseline)
    wrong = int(differs.sum())
    shares: list[tuple[float, int, list[int]]] = []
    for axis in range(rank):
        others = [other for other in range(rank) if other != axis]
        slices = (differs.any(dim=others) if others else differs).nonzero().flatten().tolist()
        shares.append((len(slices) / differs.shape[axis], axis, slices))
    share, axis, slices = min(shares)
    there, right = two.candidate[differs], two.baseline[differs]
    evidence = [
        f"{wrong} of {counted(two)} differ",
        f"largest relative difference {compared(there, right).max_rel:.3g}",
    ]
    value = constant(there)
    if value is not None:
        evidence.append(f"the candidate is {number(value)} there")
    if share <= 0.5:
        listed = ", ".join(map(str, slices[:NAMED])) + (", ..." if len(slices) > NAMED else "")
        name = axis_name(axis, rank)
        summary = f"differs in {len(slices)} of {differs.shape[axis]} {name} only ({listed})"
        return Deviation("partial", summary, tuple(evidence))
    if wrong <= FEW_ELEMENTS * differs.numel():
        places = ", ".join(as_text(place) for place in differs.nonzero()[:NAMED].tolist())
        summary = f"differs in {wrong} of {counted(two)} only ({places}{', ...' if wrong > NAMED else ''})"
        return Deviation("partial", summary, tuple(evidence))
    return None


def _unrelated(two: Reals, comparison: Comparison) -> Deviation | None:
    count = two.baseline.numel()
    chance = min(0.5, max(0.03, 4 / math.sqrt(max(count, 1))))
    if count < LEAST_TO_CORRELATE or not abs(comparison.pearson) < chance:
        return None
    spreads = [float(tensor.std()) for tensor in (two.candidate, two.baseline)]
    evidence = [
        f"correlation {comparison.pearson:.3g}",
        f"standard deviation {spreads[0]:.3g}, not {spreads[1]:.3g}",
    ]
    if two.baseline.ndim >= 2:
        bound = 1 / math.sqrt(two.baseline[0].numel())
        if 0.9 * bound <= float(two.candidate.abs().amax()) <= bound * 1.0001:
            evidence.append(f"all within {bound:.3g}, as torch's default initialisation draws")
    return Deviation("not-loaded", "is a fresh draw, uncorrelated with the baseline's", tuple(evidence))


def _perturbed(two: Reals, comparison: Comparison) -> Deviation:
    if two.baseline.numel() == 1:
        value, expected = float(two.candidate), float(two.baseline)
        return Deviation("perturbed", f"is {number(value)}, the baseline's {number(expected)}", ())
    expected_all = constant(two.baseline)
    value_all = constant(two.candidate)
    if value_all is not None:
        return Deviation("perturbed", f"is all {number(value_all)}", figures(comparison))
    if expected_all is not None:
        return Deviation(
            "perturbed", f"varies, the baseline's is all {number(expected_all)}", figures(comparison)
        )
    return Deviation("perturbed", f"differs by {comparison.nrmse:.2g} of its size", figures(comparison))
