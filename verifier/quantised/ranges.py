"""Do the ranges of tensors on the way lie where what they round does? Told from the data at hand.

Who calibrated saw other data, so that ends of a range are never exact. But min-max, percentiles and entropy all take
both ends from one distribution: none of them cuts many numbers off on one side and leaves as many codes unused on the
other, and none cuts off one in twenty. (Seen over three networks, three calibrations on 1 to 32 samples, of normal
and heavy-tailed numbers: at most 3 % of a tensor of a thousand numbers.) Where several tensors are cut off it is the
data that are others; and where it is much of what the model is given, with which all tensors behind it may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.graph.tensors import same_numbers, tensors_in
from verifier.quantised.sane import Fault, figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.forms.quantisers import Grid, Rounding
    from verifier.quantised.apart import Apart
    from verifier.quantised.trials import Trials

_SAMPLED = 2**16  # numbers of a tensor that are kept of a batch, the largest and the least among them
_ENOUGH = 1000  # numbers of which a share says something
_LEAST = 0.002  # of a tensor that is cut off, and how many numbers: fewer are one odd sample
_FEW = 8
_BESIDE = 0.1  # of all codes, by which a range lies beside its numbers
_MOVED = 0.2  # of the mean squared error, that is left with the range moved
_BOTH = 0.05  # of a tensor, on both sides
_WIDER = 0.125  # of the mean squared error, that is left with twice the range
_OTHERS = 4.0  # times as much as any other tensor is cut off
_ABOUT = 0.15  # of all codes, between the ends of a range and those of other data that are drawn alike
_TRIED = 12  # places that a range is moved to


class Met(NamedTuple):
    """A tensor that is rounded to one fixed grid, with what it is on the inputs at hand where nothing is rounded.

    Attributes:
        rounding: The quantiser.
        grid: Its grid.
        values: What is rounded, all batches in one row, of large ones a sample; below 0 nothing is left where an
            activation is cut off.
        clipped: The share of all numbers that lie beyond the last code.
        numbers: How many these are.
        given: Whether it is what the model is given, or nothing before it is rounded.
    """

    rounding: Rounding
    grid: Grid
    values: Tensor
    clipped: float
    numbers: int
    given: bool = False


def met(taken: Apart, trials: Trials) -> list[Met]:
    """What is rounded to fixed grids, one for all of a tensor."""
    makers = {layer.result: layer.name for layer in trials.quantised.layers}
    fixed = [each for each in trials.quantised.roundings if each.grid is not None and each.grid.axis is None]
    found: dict[str, Met] = {}
    for batch in range(len(trials.given)):
        values, inputs = trials.floats(batch).values, tensors_in(trials.given[batch])
        for rounding in fixed:
            grid, value = rounding.grid, values.get(rounding.name)
            if grid is None or value is None or not value.numel():
                continue
            low, high = rounding.bounds
            if float(grid.zero) == grid.low:
                low = max(low, 0.0)
                high = min(high, taken.ceilings.get(makers.get(rounding.name, ""), high))
            value = value.clamp(low, high)
            clipped = float(grid.clipped(value).double().mean())
            entering = rounding is fixed[0] or any(same_numbers(value, each) for each in inputs)
            one = Met(rounding, grid, _sampled(value), clipped, value.numel(), entering)
            before = found.get(rounding.name)
            found[rounding.name] = one if before is None else _together(before, one)
    return [*found.values()]


def _sampled(value: Tensor) -> Tensor:
    value = value.flatten()
    if len(value) <= _SAMPLED:
        return value
    generator = torch.Generator().manual_seed(0)
    some = torch.randint(len(value), (_SAMPLED - 2,), generator=generator)
    return torch.cat([value[some], value.min()[None], value.max()[None]])


def _together(one: Met, other: Met) -> Met:
    numbers = one.numbers + other.numbers
    clipped = (one.clipped * one.numbers + other.clipped * other.numbers) / numbers
    return one._replace(values=torch.cat([one.values, other.values]), clipped=clipped, numbers=numbers)


def clipping(given: Sequence[Met]) -> Iterator[Fault]:
    """Tensors that are cut off as no calibration does, where others are not."""
    enough = [each for each in given if each.numbers >= _ENOUGH]
    cut_before = any(each.given and each.clipped >= _LEAST for each in enough)
    for rounding, grid, x, clipped, numbers, entering in enough:
        if entering:
            behind = [each for each in given if not each.given]
            if clipped >= _BOTH or not behind or not all(map(_as_calibrated, behind)):
                continue
        elif cut_before:
            continue
        others = [each.clipped for each in enough if not {*each.rounding.readers} & {*rounding.readers}]
        if clipped < max(_LEAST, _FEW / numbers, _OTHERS * max(others, default=0.0)):
            continue
        layer = (rounding.readers or rounding.layers or ("",))[0]
        cut, remedy = f"{clipped:.2%} of it is clipped", f"calibrate {rounding.name} anew, on data like these"
        codes, error = _moved(x, grid)
        if abs(codes) >= _BESIDE * (grid.high - grid.low) and error <= _MOVED:
            zero = float(grid.zero)
            said = (
                f"the zero point of {rounding.name} is {zero:.0f}, and its range lies beside what it rounds"
            )
            evidence = (
                f"with {zero - codes:.0f} the mean squared error is {_times(error)}: {cut}, on one side, and "
            )
            evidence += f"{abs(codes)} codes or more on the other are unused"
            yield Fault(layer, rounding.name, "quantiser-zero-point", said, (evidence,), remedy)
        elif not entering and clipped >= _BOTH and (error := figures(x, grid).coarser) <= _WIDER:
            said = f"the scale of {rounding.name} is too small: {cut}"
            evidence = f"with twice the scale the mean squared error is {_times(error)}"
            yield Fault(layer, rounding.name, "quantiser-scale", said, (evidence,), remedy)


def clipped_otherwise(given: Sequence[Met], faults: Sequence[Fault]) -> Iterator[tuple[Met, str]]:
    """Tensors of which more is cut off than one odd sample, and no fault is known; with what to say of each."""
    known = {each.tensor for each in faults}
    for each in given:
        if each.clipped >= max(_LEAST, _FEW / each.numbers) and each.rounding.name not in known:
            said = f"{each.clipped:.2%} of {each.rounding.name} is clipped"
            yield each, f"{said}: calibrate it on data like these, or its scale is wrong"


def _as_calibrated(each: Met) -> bool:
    """Whether both ends of what a tensor holds are about those of its range, as of the data that made it."""
    steps, zero = each.grid.steps(each.values), float(each.grid.zero)
    apart = float(steps.max()) - each.grid.high + zero, float(steps.min()) - each.grid.low + zero
    return max(map(abs, apart)) <= _ABOUT * (each.grid.high - each.grid.low)


def _times(error: float) -> str:
    return f"{1 / error:.3g} times smaller" if error else "0"


def _moved(x: Tensor, grid: Grid) -> tuple[int, float]:
    """By how many codes a range is best moved over unused codes, and what is left of the mean squared error."""
    zero = float(grid.zero)
    if zero == grid.low or abs(2 * zero - grid.low - grid.high) <= 1:  # one end, or around 0, by convention
        return 0, 1.0
    steps = grid.steps(x)
    low, high = grid.low - zero, grid.high - zero
    above, below = int(high - steps.max()), int(steps.min() - low)
    if (above > 0) == (below > 0):
        return 0, 1.0

    def error(by: int) -> float:
        return float((steps.round().clamp(low + by, high + by) - steps).square().mean())

    room, before = -above if above > 0 else below, error(0)
    tried = {by for k in range(1, _TRIED + 1) if (by := round(room * k / _TRIED))}
    found = min(tried, key=error, default=0)
    return (found, error(found) / before) if before else (0, 1.0)
