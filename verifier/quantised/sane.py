"""Is each quantiser a sane one of what it is given? Told by arithmetic, from weights and from the data at hand.

A grid is too fine for some numbers if twice the step would round them better by much: what it clips then costs more
than a step does. It is too coarse if none of them reaches half of its range, so that half the step would do for all.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.quantised.floats import stands_for
from verifier.quantised.guesses import GUESSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.forms.quantisers import Grid, Rounding, Stored
    from verifier.quantised.floats import Float


class Figures(NamedTuple):
    """What rounding does to some numbers.

    Attributes:
        clipped: Share of them that lie beyond the last code.
        used: How far they reach into the range, 1 for all of it, more beyond: on the side that they fill most; of
            several scales the least. NaN of zeros alone.
        finer: Mean squared error with half the step, in that with the step; 1 where neither errs.
        coarser: The same with twice the step.
    """

    clipped: float
    used: float
    finer: float
    coarser: float


def figures(x: Tensor, grid: Grid) -> Figures:
    """What a grid does to numbers, which are not empty."""
    finer, here, coarser = (_error(x, grid.times(factor)) for factor in (0.5, 1.0, 2.0))
    used = torch.maximum(*_reach(x, grid))
    used = used[used > 0]
    return Figures(
        clipped=float(grid.clipped(x).double().mean()),
        used=float(used.min()) if used.numel() else math.nan,
        finer=_ratio(finer, here),
        coarser=_ratio(coarser, here),
    )


def _ratio(one: float, other: float) -> float:
    if one == other:
        return 1.0
    return one / other if other else math.inf


_TINY = 1e-300
_SIDE = 16  # codes: what fills fewer on a side says nothing of a step


def _error(x: Tensor, grid: Grid) -> float:
    return float((grid.values(grid.codes(x)) - x.double()).square().mean())


def _errors(x: Tensor, grid: Grid) -> Tensor:
    """The mean squared error for each scale."""
    return _by_slice((grid.values(grid.codes(x)) - x.double()).square(), grid)


def _by_slice(x: Tensor, grid: Grid) -> Tensor:
    """The mean of what each scale is for, in float64."""
    x = x.double()
    return x.mean().reshape(1) if grid.axis is None else x.movedim(grid.axis, 0).flatten(1).mean(1)


def _reach(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """How far numbers reach into the range of their scale, above 0 and below; 0 on a side of few codes."""
    steps = grid.steps(x)
    zero = grid.zero.double().reshape(-1, 1)
    steps = steps.reshape(1, -1) if grid.axis is None else steps.movedim(grid.axis, 0).flatten(1)
    nothing = torch.zeros((), dtype=torch.float64)
    found = []
    for side, room in ((steps, grid.high - zero), (-steps, zero - grid.low)):
        reach = side.amax(1, keepdim=True) / room.clamp_min(1)
        found.append(reach.where(room >= _SIDE, nothing).clamp_min(0).reshape(-1))
    return found[0], found[1]


class Fault(NamedTuple):
    """A quantiser that is not one of what it is given.

    Attributes:
        layer: The layer that reads it, by name.
        tensor: What it rounds.
        code: What sort of fault it is (`verifier.diagnose.codes`).
        said: What is wrong.
        evidence: The figures that tell.
        remedy: What to change.
    """

    layer: str
    tensor: str
    code: str
    said: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""


# Weights. A converter has all of them, so that nothing but its own choice explains a scale. Where a scale errs least,
# twice of it errs no less; who clips on purpose may miss that, but not by four times.
_CLIPS = 4.0
_TWICE = 2.0
_POWERS = 32  # of two that are tried
_MANY = 0.01  # of what a scale is for: more than is clipped on purpose
_QUARTER = 0.25 + 1 / 127  # of a range: of one weight alone, which is held against no others
_HALF = 0.5  # of a range that numbers stay within, so that half the step would do
_MOST = 0.75  # of the range that the others fill: then half of it is no convention of the converter (`reduce_range`)
_WIDE = (
    2**16
)  # codes: beyond that they are steps of something else, as those of biases, and no range is filled
_LARGE_BIAS = 2.0**28  # codes: a converter widens the step of a weight so that a large bias can be kept


def unlike(stored: Stored, known: Sequence[Float]) -> Fault | None:
    """What is wrong with a weight that is the rounding of none of the baseline's, if one number of it is."""
    layer, codes = (stored.layers or ("",))[0], stored.codes
    alike = [each for each in known if each.weight.shape == codes.shape]
    for told in GUESSES:
        for each in alike:
            found = told(stored, each)
            if found is None:
                continue
            other, code, said = found
            if stands_for(stored, [each], other):
                evidence = f"with that, its codes are the rounding of the baseline's {each.name}, each to half a step"
                return Fault(layer, stored.name, code, said, (evidence,), f"quantise {stored.name} anew")
    return None


def unsuited(matched: Sequence[tuple[Stored, Float]], biases: Mapping[str, Stored]) -> Iterator[Fault]:
    """Weights whose codes are right by their scale, and whose scale is not what the weight explains.

    Args:
        matched: Weights, each with the baseline's that it is the rounding of.
        biases: What the layers add, by the layers' names.
    """
    few = [(stored, exact) for stored, exact in matched if stored.grid.high - stored.grid.low <= _WIDE]
    told = [figures(exact.weight, stored.grid) for stored, exact in few]
    for k, (stored, exact) in enumerate(few):
        each, layer = told[k], (stored.layers or ("",))[0]
        usual = [other.used for j, other in enumerate(told) if j != k and not math.isnan(other.used)]
        middle = median(usual) if usual else math.nan
        unused = each.used <= _HALF and middle >= _MOST
        alone = math.isnan(middle) and not math.isnan(each.used)
        unused = unused or (
            alone and float(torch.maximum(*_reach(exact.weight, stored.grid)).max()) <= _QUARTER
        )
        bias = biases.get(layer)
        said, evidence = "", ""
        if not bool(stored.value.any()):
            if bool(exact.weight.any()):
                said = f"the scale of {stored.name} is too large: all of the weight is rounded to 0"
        elif (better := _larger(exact.weight, stored.grid, each)) is not None:
            said = f"the scale of {stored.name} is too small: {each.clipped:.2%} of the weight is clipped"
            factor, error = better
            times = "twice" if factor == _TWICE else f"{factor:g} times"
            evidence = f"with {times} the scale the mean squared error is "
            evidence += f"{1 / error:.3g} times smaller" if error else "0"
        elif unused and not (bias and _large(bias)):
            others = "" if math.isnan(middle) else f", the others {middle:.0%}"
            said = f"the scale of {stored.name} is too large: the weight fills {each.used:.0%} of its range{others}"
            evidence = f"with half the scale the mean squared error is {each.finer:.3g} times that"
        if said:
            remedy = f"quantise {stored.name} with the scale that its largest numbers need"
            yield Fault(layer, stored.name, "quantiser-scale", said, (evidence,) if evidence else (), remedy)


def _larger(weight: Tensor, grid: Grid, found: Figures) -> tuple[float, float] | None:
    """By how much a scale is too small, a power of two, and what is left of the mean squared error then.

    Of several scales it is that which gains most.
    """
    if found.coarser * _CLIPS < 1:
        return _TWICE, found.coarser
    here, many = _errors(weight, grid), _by_slice(grid.clipped(weight), grid) >= _MANY
    if not bool(many.any()):
        return None
    factors = [_TWICE**k for k in range(1, _POWERS)]
    left = torch.stack([_errors(weight, grid.times(factor)) for factor in factors])[:, many] / here[many]
    least, which = left.min(0)
    worst = int(least.argmin())
    error = float(least[worst])
    return (factors[int(which[worst])], error) if error * _CLIPS < 1 else None


def _large(bias: Stored) -> bool:
    return float(bias.codes.abs().max()) >= _LARGE_BIAS


# Tensors on the way. They were rounded by other data than those at hand, so a step is held against what is exact: how
# its codes are read, and the steps of biases that are its multiples; and against the other quantisers of the model,
# which were made of the same data. Calibrated on data like these (MinMax, Entropy, Percentile of onnxruntime, 32 to
# 49 tensors of a ResNet-18) a tensor reaches 0.8 to 1.0 of the range, 0.3 octaves around the middle; a scale that is
# off by two is off by one octave.
_OCTAVES = 0.7
_BEYOND = 0.4  # octaves that it must be further from the middle than every other
_FEW = 6  # tensors: of fewer there is no middle


def misread(rounding: Rounding) -> Fault | None:
    """Whether codes are read as other numbers than they were made for."""
    made, read = rounding.grid, rounding.back
    if read is None or (made is not None and made.same(read)):
        return None
    what, code = "scale", "quantiser-scale"
    if made is not None and made.axis != read.axis:
        what, code = "axis", "quantiser-axis"
    elif bool(read.scale.isnan().all()) if made is None else torch.equal(made.scale, read.scale):
        what, code = "zero point", "quantiser-zero-point"
    layer = (rounding.readers or rounding.layers or ("",))[0]
    numbers: tuple[str, ...] = ()
    if made is not None and made.axis is None and read.axis is None:
        numbers = (
            f"made with scale {float(made.scale):.6g} and zero point {float(made.zero):.0f}, read with "
            f"{float(read.scale):.6g} and {float(read.zero):.0f}",
        )
    said = f"{rounding.name} is read with another {what} than it was quantised with"
    return Fault(layer, rounding.name, code, said, numbers, "read the codes with the scale that made them")


def out_of_step(biases: Sequence[Stored], inputs: Mapping[str, str]) -> Iterator[Fault]:
    """Layers whose bias is in other steps than the product of those of what they multiply.

    A runtime that computes with whole numbers adds a bias to products, in steps that are the product of both scales.
    The weight and the bias are the baseline's, so that it is the scale of the input that is another one.

    Args:
        biases: Biases that are the rounding of the baseline's, of layers whose weights are so, too.
        inputs: What these layers read, by their names.
    """
    ratios: dict[str, float] = {}
    for bias in biases:
        if bias.step is not None and bias.layers and bias.step.numel() in (1, bias.grid.scale.numel()):
            apart = bias.step.reshape(-1) / bias.grid.scale.double().reshape(-1)
            ratios[bias.layers[0]] = float(apart.median())
    wrong = {layer: r for layer, r in ratios.items() if abs(r - 1) > ROUNDINGS * SINGLE_ROUNDOFF}
    if 2 * len(wrong) > len(ratios):  # a converter of other habits
        return
    for layer, ratio in wrong.items():
        name = inputs.get(layer, "the input")
        yield Fault(
            layer,
            name,
            "quantiser-scale",
            f"the scale of {name}, which {layer} reads, is {ratio:.4g} times the one that its bias was quantised for",
            ("the bias is kept in steps of the product of the scales of input and weight",),
            f"quantise {name} with 1/{ratio:.4g} of the scale" if ratio else "",
        )


def outlying(given: Sequence[tuple[Rounding, Grid, Tensor]]) -> Iterator[Fault]:
    """Tensors whose ranges are another multiple of what is in them than those of all others are.

    Args:
        given: What is rounded and to what, with what it was on the inputs at hand.
    """
    reached = []
    for _, grid, x in given:
        up, down = _reach(x, grid)
        reached.append(math.log2(max(float(up.max()), float(down.max()), _TINY)))
    for k, (rounding, grid, x) in enumerate(given):
        others = [reach for j, reach in enumerate(reached) if j != k]
        if len(others) < _FEW:
            return
        middle = median(others)
        spread = max(abs(reach - middle) for reach in others)
        off = reached[k] - middle
        if abs(off) < max(_OCTAVES, spread + _BEYOND):
            continue
        found = figures(x, grid)
        large = off < 0
        if (found.finer if large else found.coarser) * 2 >= 1:
            continue
        layer = (rounding.readers or rounding.layers or ("",))[0]
        size = "large" if large else "small"
        yield Fault(
            layer,
            rounding.name,
            "quantiser-scale",
            f"the scale of {rounding.name} is too {size}: what it rounds here fills {2 ** reached[k]:.0%} of its "
            f"range, the other tensors {2**middle:.0%}",
            (f"all others are within a factor of {2**spread:.3g} of that; {found.clipped:.2%} is clipped",),
            f"calibrate {rounding.name} anew",
        )


def off_zero(rounding: Rounding) -> Fault | None:
    """Whether codes are kept for what is below 0, where nothing can be.

    The least number is then 0, which has the first code; or the middle one, where a converter rounds around 0.
    """
    grid = rounding.grid
    if grid is None or grid.axis is not None or not rounding.positive:
        return None
    zero = float(grid.zero)
    if zero == grid.low or abs(2 * zero - grid.low - grid.high) <= 1:
        return None
    layer = (rounding.readers or rounding.layers or ("",))[0]
    said = f"the zero point of {rounding.name} is {zero:.0f}, though nothing in it can be below 0"
    remedy = f"quantise {rounding.name} from 0 on, with the zero point {grid.low}"
    return Fault(layer, rounding.name, "quantiser-zero-point", said, (), remedy)


def uneven(roundings: Sequence[Rounding]) -> Iterator[Fault]:
    """Signed codes whose 0 is not 0, where that of all others is."""
    signed = [
        (each, float(each.grid.zero))
        for each in roundings
        if each.grid is not None and each.grid.low < 0 and each.grid.axis is None
    ]
    odd = [(each, zero) for each, zero in signed if zero]
    if len(odd) != 1 or len(signed) <= _FEW:
        return
    [(one, zero)] = odd
    layer = (one.readers or one.layers or ("",))[0]
    said = f"the zero point of {one.name} is {zero:.0f}, that of the {len(signed) - 1} others 0"
    yield Fault(layer, one.name, "quantiser-zero-point", said, (), f"quantise {one.name} around 0")
