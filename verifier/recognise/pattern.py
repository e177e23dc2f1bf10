"""The shape of an error that nothing explains: where it sits and what of the baseline it follows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from verifier.recognise.axes import as_text
from verifier.recognise.location import where_it_differs
from verifier.recognise.reals import number, reals, same, sample_positions
from verifier.recognise.slices import order_in_words, order_of_slices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from verifier.recognise.reals import Reals

MOST_STATEMENTS = 5
# An explanation holds if it leaves at most this share of the error (as norms).
LEFT = 0.01
ROUNDINGS = 8  # times the tolerance of single elements: a sum of many terms is rounded often
LEAST = 8  # elements on either side of a boundary, or to each fitted gain, that are not chance
SMOOTH = 0.1
SHIFTED_MAPS = 64
LARGE = 1 << 22


def describe(candidate: Tensor, baseline: Tensor) -> tuple[str, ...]:
    """At most five short statements on how the candidate differs, the most telling first; none where it does not.

    Args:
        candidate: Tensor of any dtype, strides and device.
        baseline: Of the same shape; a statement on shapes is all there is otherwise. Dimension 0 counts as
            samples, dimension 1 as channels, the last two of four or more as height and width.

    Of tensors beyond 4 million elements, explanations are sought in the samples that differ most.
    """
    if candidate.shape != baseline.shape:
        return (f"has shape {as_text(candidate.shape)} where the baseline has {as_text(baseline.shape)}",)
    two = reals(candidate, baseline)
    if not two.baseline.numel():
        return ()
    statements: list[str] = []
    differs = _differs(two)
    wrong, count = int(differs.sum()), differs.numel()
    statements += _nonfinite(two)
    if wrong == 0:
        return ("equal but for rounding",) if bool((~same(two.candidate, two.baseline)).any()) else ()
    if count == 1:
        return (f"is {number(float(two.candidate))} where the baseline is {number(float(two.baseline))}",)
    some, there = _samples(two, differs)
    finite = some.candidate.isfinite() & some.baseline.isfinite()
    c, b = (tensor.double().masked_fill(~finite, 0) for tensor in (some.candidate, some.baseline))
    there &= finite
    explanations = (
        list(itertools.islice(_explanations(some, c, b, there, finite), 2)) if bool(there.any()) else []
    )
    statements += explanations
    statements += where_it_differs(differs)
    if not explanations and count == c.numel():
        statements += _sign(c, b, there)
    share = f"{wrong} of {count} elements differ ({100 * wrong / count:.3g} %)"
    statements = statements[: MOST_STATEMENTS - 1]
    return (*statements, share if wrong < count else "every element differs")


def _samples(two: Reals, differs: Tensor) -> tuple[Reals, Tensor]:
    """As many samples as make 4 million elements, those in which most elements differ."""
    samples = differs.shape[0] if differs.ndim else 1
    kept = max(1, samples * LARGE // differs.numel())
    if kept >= samples:
        return two, differs.clone()
    worst = differs.reshape(samples, -1).sum(1).topk(kept).indices.sort().values
    some = replace(two, candidate=two.candidate[worst], baseline=two.baseline[worst])
    return some, differs[worst]


def _differs(two: Reals) -> Tensor:
    """Which elements differ beyond rounding, at the size of the whole tensor: sums are rounded at that of terms."""
    c, b = two.candidate, two.baseline
    finite = b.isfinite()
    typical = float(b[finite].double().square().mean().sqrt()) if bool(finite.any()) else 0.0
    allowed = b.abs().clamp_(min=typical if math.isfinite(typical) else 0.0).mul_(ROUNDINGS * two.tolerance)
    near = (c - b).abs() <= allowed.add_(two.floor).nan_to_num_(0, 0, 0)
    return ~(near | same(c, b))


def _nonfinite(two: Reals) -> Iterator[str]:
    odd = [~tensor.isfinite() for tensor in (two.candidate, two.baseline)]
    counts = [int(mask.sum()) for mask in odd]
    if counts[0] and not counts[1]:
        yield f"NaN or infinite in {counts[0]} of {odd[0].numel()} elements, the baseline nowhere"
    elif counts[1] and not counts[0]:
        yield f"finite where the baseline is NaN or infinite, in {counts[1]} of {odd[0].numel()} elements"
    elif any(counts) and not bool(odd[0].eq(odd[1]).all()):
        yield f"NaN or infinite in {counts[0]} elements, the baseline in {counts[1]}, not all the same"
    elif any(counts) and not bool(same(two.candidate, two.baseline)[odd[0]].all()):
        yield "NaN and infinities of either sign stand in the same places but are not the same"


def _explanations(two: Reals, c: Tensor, b: Tensor, differs: Tensor, finite: Tensor) -> Iterator[str]:
    """What would account for the error, from the simplest; `c` and `b` are float64, 0 where either is not finite."""
    value = c.reshape(-1)[0]
    if bool((c == value).all()) and not bool((b == b.reshape(-1)[0]).all()):
        yield f"is {number(float(value))} everywhere"
        return
    whole = bool(finite.all())
    error = float((c - b).norm())
    if not 0 < error < math.inf:
        return
    if whole:
        affine = next(_affine(c, b, error), None)
        if affine is not None:
            yield affine
            return
        yield from _moved(two, c, b, error)
    bounds = list(_bounds(c, b, differs, finite))
    yield from bounds
    if not bounds and _is_pointwise(c, b, finite):
        yield "the error depends on the baseline's value alone, as with another activation"


def _affine(c: Tensor, b: Tensor, error: float) -> Iterator[str]:
    """A gain and an offset: one for all, one a channel, one a sample."""
    if c.numel() >= LEAST:
        gain, offset, left = _fit(c.reshape(1, -1), b.reshape(1, -1))
        if left <= LEFT * error:
            yield f"{_line(float(gain), float(offset), b)} leaves {left / error:.1g} of the error"
    for axis, noun in ((1, "channel"), (0, "sample"), (2, "position of dimension 2")):
        if axis >= c.ndim or (axis == 2 and c.ndim != 3) or c.shape[axis] < 2:
            continue
        rows = [tensor.movedim(axis, 0).reshape(c.shape[axis], -1) for tensor in (c, b)]
        if rows[0].shape[1] < LEAST:
            continue
        gains, offsets, left = _fit(*rows)
        if left <= LEFT * error:
            yield (
                f"a gain of {_span(gains)} and an offset of {_span(offsets)} for each {noun} "
                f"leaves {left / error:.1g} of the error"
            )


def _fit(c: Tensor, b: Tensor) -> tuple[Tensor, Tensor, float]:
    """Gain and offset of each row by least squares, and the norm of what they leave."""
    mean_c, mean_b = c.mean(1, keepdim=True), b.mean(1, keepdim=True)
    spread = (b - mean_b).square().sum(1, keepdim=True)
    product = ((b - mean_b) * (c - mean_c)).sum(1, keepdim=True)
    varies = spread > 1e-24 * b.square().sum(1, keepdim=True)
    gain = torch.where(varies, product / spread, torch.ones_like(spread))
    offset = mean_c - gain * mean_b
    left = float((c - gain * b - offset).norm())
    return gain.flatten(), offset.flatten(), left if math.isfinite(left) else math.inf


def _line(gain: float, offset: float, b: Tensor) -> str:
    size = float(b.norm()) / math.sqrt(b.numel())
    if abs(offset) <= 1e-6 * size * abs(gain):
        return f"{number(gain)} x baseline"
    sign = "+" if offset > 0 else "-"
    if abs(gain - 1) <= 1e-6:
        return f"baseline {sign} {abs(offset):.4g}"
    return f"{number(gain)} x baseline {sign} {abs(offset):.4g}"


def _span(numbers: Tensor) -> str:
    low, high = (float(x) for x in numbers.aminmax())
    return (
        f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-3, abs_tol=1e-12) else f"{low:.4g} to {high:.4g}"
    )


def _moved(two: Reals, c: Tensor, b: Tensor, error: float) -> Iterator[str]:
    """The same numbers elsewhere: channels in another order, or a picture one pixel off."""
    for axis, noun in ((1, "channels"), (0, "samples")):
        if axis < c.ndim and c.shape[axis] >= 2 and c.numel() > c.shape[axis]:
            order = order_of_slices(two.candidate, two.baseline, axis)
            if order is not None and float((c - b.index_select(axis, order)).norm()) <= LEFT * error:
                yield f"{noun} in another order: {order_in_words(order.tolist())}"
                return
    if c.ndim < 3 or min(c.shape[-2:]) < 4:
        return
    maps = [tensor.reshape(-1, *tensor.shape[-2:])[:SHIFTED_MAPS] for tensor in (c, b)]
    for down, right in itertools.product((0, -1, 1), repeat=2):
        if (down, right) == (0, 0):
            continue
        there = torch.roll(maps[1], (down, right), (-2, -1))
        inner = (..., slice(1, -1), slice(1, -1))
        unshifted = float((maps[0] - maps[1])[inner].norm())
        if unshifted > 0 and float((maps[0] - there)[inner].norm()) <= LEFT * unshifted:
            places = [name for name in (_way(down, "down", "up"), _way(right, "right", "left")) if name]
            yield f"is the baseline moved one pixel {' and '.join(places)}"
            return


def _way(step: int, forward: str, backward: str) -> str:
    return {1: forward, -1: backward}.get(step, "")


def _bounds(c: Tensor, b: Tensor, differs: Tensor, finite: Tensor) -> Iterator[str]:
    """Errors on one side of a value of the baseline only: an activation or a clamp too many, missing or other."""
    there, elsewhere = b[differs], b[finite & ~differs]
    if len(there) < LEAST or len(elsewhere) < LEAST:
        return
    mine = c[differs]
    lowest, highest = (float(x) for x in there.aminmax())
    low_rest, high_rest = (float(x) for x in elsewhere.aminmax())
    if lowest == highest:
        if lowest <= low_rest and bool((mine < lowest).all()):
            yield f"falls below {number(lowest)}, the baseline's least value, in {len(mine)} elements"
        elif lowest >= high_rest and bool((mine > lowest).all()):
            yield f"exceeds {number(lowest)}, the baseline's largest value, in {len(mine)} elements"
        return
    side = ""
    if highest <= low_rest:
        side = "negative" if highest <= 0 <= low_rest else f"below {0.5 * (highest + low_rest):.4g}"
    elif lowest >= high_rest:
        side = "positive" if high_rest <= 0 <= lowest else f"above {0.5 * (lowest + high_rest):.4g}"
    if side:
        held, other = (float(x) for x in mine.aminmax())
        also = f", and is {number(held)} there" if held == other else ""
        if not also:
            slope = float((mine * there).sum() / there.square().sum())
            if float((mine - slope * there).norm()) <= LEFT * float((mine - there).norm()):
                also = f", and is {number(slope)} x the baseline there"
        yield f"differs only where the baseline is {side}{also}"


def _is_pointwise(c: Tensor, b: Tensor, finite: Tensor) -> bool:
    """Whether elements with neighbouring baseline values have nearly the same error."""
    known = finite.reshape(-1).nonzero().flatten()
    positions = known[sample_positions(len(known), known.device)]
    if len(positions) < 64:
        return False
    b_sorted, order = b.reshape(-1)[positions].sort()
    if float(b_sorted[0]) == float(b_sorted[-1]):
        return False
    error = (c.reshape(-1)[positions] - b.reshape(-1)[positions])[order]
    spread = float((error - error.mean()).square().sum())
    # the nearer of two neighbours: where the baseline is not monotonic, one value has two errors
    steps = torch.minimum((error[1:-1] - error[:-2]).square(), (error[2:] - error[:-2]).square())
    return spread > 0 and float(steps.sum()) <= SMOOTH * spread


def _sign(c: Tensor, b: Tensor, differs: Tensor) -> Iterator[str]:
    difference = (c - b)[differs]
    if len(difference) < LEAST:
        return
    if bool((difference > 0).all()):
        yield "always above the baseline where it differs"
    elif bool((difference < 0).all()):
        yield "always below the baseline where it differs"
