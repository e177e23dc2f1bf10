"""Recognising an input that was prepared otherwise: channel order, scale, normalisation, layout, size."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.recognise.axes import as_text
from verifier.recognise.channels import fit_channels
from verifier.recognise.preparations import PREPARATIONS, known_preparations
from verifier.recognise.reals import identical, number, reals
from verifier.recognise.rounding import rounded_through
from verifier.recognise.same_pictures import correlation_of, relate_pictures, same_samples
from verifier.recognise.slices import order_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from verifier.recognise.channels import Fit
    from verifier.recognise.reals import Reals

# What an affine map may leave, as a share of the largest value, if one side went through bytes; and how well
# gains and offsets are then known.
BYTES = 0.01
ROUGHLY = 0.02
OFF_GRID = 0.02  # steps of 1/255
LAYOUTS: dict[tuple[int, ...], str] = {
    (0, 1, 2, 3): "",
    (0, 3, 1, 2): "is N, H, W, C where the baseline's is N, C, H, W",
    (0, 2, 3, 1): "is N, C, H, W where the baseline's is N, H, W, C",
    (0, 1, 3, 2): "has height and width exchanged",
}
FLIPS: dict[tuple[int, ...], str] = {
    (): "",
    (3,): "is mirrored left to right",
    (2,): "is upside down",
    (2, 3): "is turned by 180 degrees",
}


@dataclass(frozen=True, slots=True)
class Treatment:
    """How the candidate's input differs from the baseline's.

    `code` is one of `input-channel-order, input-scale, input-normalisation, input-layout, input-flip,
    input-resize, input-dtype, input-different`; `summary` a clause whose subject is the candidate's input.
    `undo` turns the candidate's input into the baseline's, in the baseline's dtype, as far as the finding
    says; None where nothing can.
    """

    code: str
    summary: str
    evidence: tuple[str, ...] = ()
    undo: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Axes in another order, then some of them reversed."""

    axes: tuple[int, ...]
    flipped: tuple[int, ...]

    def __call__(self, tensor: Tensor) -> Tensor:
        """The candidate's tensor in the baseline's arrangement."""
        return tensor.permute(self.axes).flip(self.flipped)


def recognise(candidate: Tensor, baseline: Tensor) -> Treatment | None:
    """What was done otherwise to the candidate's input, or None where both hold the same numbers.

    Args:
        candidate: A batch of images (N, C, H, W) or (N, H, W, C); of other tensors only dtype, scale and the
            order of samples are recognised.
        baseline: What the trusted model is given.
    """
    two = reals(candidate, baseline)
    if two.candidate.shape == two.baseline.shape:
        if identical(two.candidate, two.baseline):
            return None
        rounded = _rounded(two)
        if rounded is not None:
            return rounded
    is_complex = candidate.is_complex() or baseline.is_complex()
    if is_complex or not two.baseline.numel() or not two.candidate.numel():
        return _otherwise(two)
    return (
        _mapped(two, two.tolerance, baseline.dtype)
        or _reordered(two, baseline.dtype)
        or _in_bytes(two)
        or _mapped(two, BYTES, baseline.dtype)
        or _resized(two, baseline.dtype)
        or _otherwise(two)
    )


def _rounded(two: Reals) -> Treatment | None:
    for one, other, summary in (
        (two.candidate, two.baseline, "is rounded to {}"),
        (two.baseline, two.candidate, "is not rounded to {} as the baseline's is"),
    ):
        formats = rounded_through(one, other)
        if formats:
            return Treatment("input-dtype", summary.format(formats[0]))
    if two.fits(two.candidate, two.baseline):
        return Treatment("input-dtype", "differs in the last digits only")
    return None


def _mapped(two: Reals, allowed: float, dtype: torch.dtype) -> Treatment | None:
    """An arrangement of axes and channels with a gain and an offset, that leaves at most `allowed`."""
    for arrangement in _arrangements(two):
        candidate, baseline = arrangement(two.candidate), two.baseline
        if baseline.ndim != 4:
            candidate, baseline = candidate.reshape(1, 1, 1, -1), baseline.reshape(1, 1, 1, -1)
        fit = fit_channels(candidate, baseline, allowed)
        if fit is None:
            continue
        changes, evidence = _changes(arrangement, fit, allowed, float(two.baseline.amin()))
        if not changes:
            return None
        (code, summary), *more = changes
        if allowed == BYTES:
            evidence.append(f"{fit.left / fit.scale:.2g} of the largest value remains unexplained")
        trivial = fit.is_identity(max(4 * allowed, ROUGHLY if allowed == BYTES else 0))
        undo = functools.partial(_undone, arrangement=arrangement, fit=fit, dtype=dtype, trivial=trivial)
        return Treatment(code, summary, (*(f"also {clause}" for _, clause in more), *evidence), undo)
    return None


def _arrangements(two: Reals) -> Iterator[Arrangement]:
    shape = two.candidate.shape
    if len(shape) != 4:
        if shape == two.baseline.shape:
            yield Arrangement(tuple(range(len(shape))), ())
        return
    for flipped in FLIPS:
        for axes in LAYOUTS:
            if tuple(shape[axis] for axis in axes) == two.baseline.shape:
                yield Arrangement(axes, flipped)


def _changes(
    arrangement: Arrangement, fit: Fit, allowed: float, lowest: float
) -> tuple[list[tuple[str, str]], list[str]]:
    """Codes with their clauses, the one to mend first in front, and evidence."""
    changes: list[tuple[str, str]] = []
    evidence: list[str] = []
    if layout := LAYOUTS.get(arrangement.axes):
        changes.append(("input-layout", layout))
    if flip := FLIPS[arrangement.flipped]:
        changes.append(("input-flip", flip))
    if fit.order != sorted(fit.order):
        changes.append(("input-channel-order", _channel_order(fit.order)))
    accuracy = max(10 * allowed, 1e-4) if allowed < BYTES else ROUGHLY
    if fit.is_identity(4 * allowed):
        return changes, evidence
    known = known_preparations(fit.gain, fit.offset, fit.order, lowest, accuracy)
    if fit.is_uniform(accuracy):
        changes.append(("input-scale", _scale(fit, accuracy)))
        evidence += [f"the input {known}"] if known else []
    else:
        changes.append(
            ("input-normalisation", known or "has a gain and an offset of its own in each channel")
        )
        evidence.append(f"gains {', '.join(f'{gain:.6g}' for gain in fit.gain[:8])}")
        evidence.append(f"offsets {', '.join(f'{offset:.6g}' for offset in fit.offset[:8])}")
    return changes, evidence


def _channel_order(order: list[int]) -> str:
    if order == [2, 1, 0]:
        return "has its channels in reverse order, as BGR is of RGB"
    return f"has its channels in the order {as_text(order)}"


def _scale(fit: Fit, accuracy: float) -> str:
    gain, offset = fit.gain[0], fit.offset[0]
    digits = 1e-3 if accuracy == ROUGHLY else 1e-5
    gain, offset = _tidied(gain, digits), _tidied(offset, digits)
    factor = "the baseline's" if gain == 1 else f"{number(gain)} x the baseline's"
    if abs(offset) <= accuracy * abs(gain):
        return f"is {factor}"
    return f"is {factor} {'+' if offset > 0 else '-'} {number(abs(offset))}"


def _tidied(value: float, digits: float) -> float:
    """The simple number that `value` is up to `digits` of it."""
    if value and abs(value) > digits:
        for simple in (float(round(value)), 1 / round(1 / value) if abs(value) < 1 else 0.0):
            if simple and abs(value - simple) <= digits * abs(value):
                return simple
    return value


def _undone(
    given: Tensor, *, arrangement: Arrangement, fit: Fit, dtype: torch.dtype, trivial: bool
) -> Tensor:
    arranged = arrangement(given)
    if not trivial:
        shape = (1, -1, 1, 1) if given.ndim == 4 else ()
        gain, offset = (
            torch.tensor(numbers, dtype=torch.float64, device=given.device).reshape(shape)
            for numbers in (fit.gain, fit.offset)
        )
        arranged = (arranged.to(torch.float64) - offset) / gain
        if not dtype.is_floating_point:
            arranged = arranged.round()
    if fit.order != sorted(fit.order):
        arranged = arranged[:, [fit.order.index(channel) for channel in range(len(fit.order))]]
    return arranged.to(dtype)


def _reordered(two: Reals, dtype: torch.dtype) -> Treatment | None:
    order = same_samples(two) if two.candidate.shape == two.baseline.shape else None
    if order is None:
        return None
    back = order.argsort()
    return Treatment(
        "input-different",
        "has its samples in another order",
        (f"samples: {order_in_words(order.tolist())}",),
        lambda given: given[back.to(given.device)].to(dtype),
    )


def _in_bytes(two: Reals) -> Treatment | None:
    """Whether one side is the other with each pixel rounded to one of 256 steps, in any known preparation."""
    if two.candidate.shape != two.baseline.shape or not bool((two.candidate - two.baseline).isfinite().all()):
        return None
    is_colour = two.baseline.ndim == 4 and two.baseline.shape[1] == 3
    for known in PREPARATIONS:
        if len(set(known.mean)) > 1 and not is_colour:
            continue
        shape = (1, 3, 1, 1) if is_colour else ()
        mean, std = (
            torch.tensor(
                numbers if is_colour else numbers[0], dtype=torch.float64, device=two.baseline.device
            ).reshape(shape)
            for numbers in (known.mean, known.std)
        )
        c, b = ((tensor.double() * std + mean) * 255 for tensor in (two.candidate, two.baseline))
        if float((c - b).abs().amax()) > 1 + OFF_GRID:
            continue
        for steps, summary in (
            (c, "is rounded to steps of 1/255"),
            (b, "is not rounded to steps of 1/255 as the baseline's is"),
        ):
            if bool(((steps - steps.round()).abs() <= OFF_GRID).all()) and bool(
                ((steps >= -OFF_GRID) & (steps <= 255 + OFF_GRID)).all()
            ):
                return Treatment("input-dtype", summary, (f"pictures {known.name}",))
    return None


def _resized(two: Reals, dtype: torch.dtype) -> Treatment | None:
    alike = relate_pictures(two)
    if alike is None:
        return None
    undo = None
    if alike.crop is not None:
        (top, left), (height, width) = alike.crop, two.baseline.shape[2:]

        def undo(given: Tensor) -> Tensor:
            return given[..., top : top + height, left : left + width].to(dtype)

    return Treatment("input-resize", alike.summary, alike.evidence, undo)


def _otherwise(two: Reals) -> Treatment:
    shape, expected = two.candidate.shape, two.baseline.shape
    if shape != expected:
        return Treatment(
            "input-different", f"has shape {as_text(shape)}, the baseline's is {as_text(expected)}"
        )
    odd = [int((~tensor.isfinite()).sum()) for tensor in (two.candidate, two.baseline)]
    if any(odd):
        return Treatment(
            "input-different", f"holds {odd[0]} NaN or infinite elements, the baseline's {odd[1]}"
        )
    evidence = (f"correlation {correlation_of(two):.3g}",) if two.baseline.ndim else ()
    return Treatment("input-different", "holds something else", evidence)
