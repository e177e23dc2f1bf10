"""What a culprit looks like: settings of both sides, and small pictures of its error on the baseline's inputs."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from verifier.border.error_texts import first_line
from verifier.diagnose.neighbourhood import laid_as
from verifier.diagnose.reruns import forced
from verifier.graph.operators import IRRELEVANT, canonical
from verifier.recognise.pattern import describe
from verifier.recognise.reals import reals, same
from verifier.records import Exhibit, Histogram, PairResult, Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.align import Alignment
    from verifier.graph import Graph
    from verifier.lockstep import Lane

# So many culprits a cell are pictured: about 10 kB of text each.
MOST = 24
SIDE = 48  # rows and columns of a picture
BARS = 64
BINS = 41  # odd, so that small differences of either sign share the middle one
STEPS = 254  # of a byte; the last value stands for numbers that are not finite
_SETTING = 200  # characters

# Operators whose tensors of three dimensions have channels in the second: all others' have them in the last.
_CHANNELS_SECOND = ("conv", "batch_norm", "instance_norm", "group_norm", "max_pool", "avg_pool", "adaptive_")


def exhibits(
    alignment: Alignment,
    rows: Sequence[PairResult],
    culprits: Sequence[PairResult],
    open_lanes: Callable[[], tuple[Lane, Lane]],
) -> tuple[Exhibit, ...]:
    """Settings and pictures of the first culprits, and of the first of each cause, from one forced pass.

    Args:
        alignment: The pairs.
        rows: All judged rows.
        culprits: Those to look at.
        open_lanes: Makes the baseline's lane and the candidate's.
    """
    places = [_Place.of(alignment, rows, culprit) for culprit in _chosen(culprits)]
    wanted = {place.pair: place for place in places if place.pair is not None}
    seen: dict[int, Exhibit] = {}

    def look(place: _Place, baseline: Tensor, candidate: Tensor) -> None:
        try:
            seen[place.culprit.index] = pictured(place.bare, candidate, baseline, place.culprit.op)
        except Exception as error:  # a picture is not worth a result
            told = f"it could not be pictured: {first_line(error)}"
            seen[place.culprit.index] = msgspec.structs.replace(place.bare, pattern=(told,))

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        look(wanted[pair], tensors[0], tensors[1])

    ends = any(place.output is not None for place in places)
    if wanted or ends:
        passes = forced(alignment, open_lanes(), visit, wanted, to_end=ends)
        for place in places:
            if place.output is not None and passes is not None:
                look(place, passes.values[0][place.output], passes.values[1][place.output])
    return tuple(seen.get(place.culprit.index, place.bare) for place in places)


def _chosen(culprits: Sequence[PairResult]) -> list[PairResult]:
    """As many as are pictured, in order of execution: the first of each cause, then the first of all."""
    first: dict[object, int] = {}
    for k, row in enumerate(culprits):
        first.setdefault((row.cause.code, row.cause.summary) if row.cause else None, k)
    leading = first.values()
    others = sorted({*range(len(culprits))} - {*leading})
    return [culprits[k] for k in sorted([*leading, *others][:MOST])]


@dataclass(frozen=True)
class _Place:
    """Where to look for a culprit: at a pair or an output, by position; at neither if nothing is to be seen."""

    culprit: PairResult
    bare: Exhibit
    pair: int | None = None
    output: int | None = None

    @classmethod
    def of(cls, alignment: Alignment, rows: Sequence[PairResult], culprit: PairResult) -> _Place:
        at = culprit
        if culprit.kind == "site" and _number(alignment, culprit) is None:
            # It stands on one side alone, or was built of other operators: what reads it is the first to show.
            at = next((row for row in rows if _reads_through(row, culprit)), culprit)
        bare = Exhibit(
            index=culprit.index,
            site=at.baseline or at.candidate or "",
            baseline_settings=_settings(alignment.baseline, culprit.baseline),
            candidate_settings=_settings(alignment.candidate, culprit.candidate),
        )
        unlike = bool(at.inputs_differ) and not at.apart  # the pass could not give both sides the same inputs
        if (
            at.kind in {"input", "state", "call"}
            or at.candidate_shape is not None
            or unlike
            or at.baseline is None
        ):
            return cls(culprit, bare)
        if at.kind == "output":
            return cls(culprit, bare, output=at.position)
        return cls(culprit, bare, pair=_number(alignment, at))


def _number(alignment: Alignment, row: PairResult) -> int | None:
    """The pair of a row's two sites, by position."""
    b = alignment.baseline.by_name.get(row.baseline or "")
    c = alignment.candidate.by_name.get(row.candidate or "")
    if b is None or c is None:
        return None
    return next((k for k, pair in enumerate(alignment.pairs) if pair == (b.index, c.index)), None)


def _reads_through(row: PairResult, culprit: PairResult) -> bool:
    return culprit.baseline in row.between_baseline or culprit.candidate in row.between_candidate


def _settings(graph: Graph, name: str | None) -> dict[str, str]:
    """How a site is written: its operator, the weights it reads and the other arguments that matter."""
    site = graph.by_name.get(name or "")
    if site is None:
        return {}
    weights = {use.role or use.name: f"{use.name}, {_dimensions(use.shape)}" for use in site.tensors}
    others = {key: str(canonical(value)) for key, value in site.attributes.items() if key not in IRRELEVANT}
    return {
        key: value[:_SETTING]
        for key, value in {"operator": site.op, "shape": _dimensions(site.shape), **weights, **others}.items()
    }


def _dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def pictured(bare: Exhibit, candidate: Tensor, baseline: Tensor, op: str = "") -> Exhibit:
    """`bare` with pictures of how two tensors of any dtype and device differ.

    Dimension 0 counts as samples. Channels are dimension 1 and planes the last two of four or more dimensions; of
    three, channels are the last (dimension 1 after convolutions and the like) and a plane is a whole sample.
    Nothing is added for empty tensors and tensors of different shapes.
    """
    baseline = laid_as(baseline, candidate)
    if candidate.shape != baseline.shape or not candidate.numel():
        return bare
    two = reals(candidate, baseline)
    c, b = (tensor.double() for tensor in (two.candidate, two.baseline))
    if candidate.is_complex():  # the last axis holds the two parts of a number
        c, b = c.abs().amax(-1), b.abs().amax(-1)
    if c.dim() < 2:
        c, b = c.reshape(1, -1), b.reshape(1, -1)
    difference = torch.where(same(c, b), torch.zeros_like(c), c - b)
    axis = 2 if c.dim() == 3 and not op.startswith(_CHANNELS_SECOND) else 1
    errors = _errors(difference, b, axis)
    channel = int(errors.argmax())
    sample = int(_norms(difference.select(axis, channel), 0).argmax())
    shown = (
        {} if c.dim() < 3 else _planes(*(_plane(each, axis, sample, channel) for each in (b, c, difference)))
    )
    each = -(-len(errors) // BARS)
    return msgspec.structs.replace(
        bare,
        pattern=describe(candidate, baseline),
        channels=tuple(_rounded(float(part.amax())) for part in torch.split(errors, each)),
        channels_each=each,
        channel=channel,
        sample=sample,
        histogram=_histogram(difference),
        **shown,
    )


def _norms(tensor: Tensor, axis: int) -> Tensor:
    """Root mean square of each slice, infinite where a number is not finite."""
    rows = tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
    return rows.square().mean(1).sqrt().nan_to_num(math.inf, math.inf, math.inf)


def _errors(difference: Tensor, baseline: Tensor, axis: int) -> Tensor:
    finite = baseline[baseline.isfinite()]
    size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    return _norms(difference, axis) / (size if 0 < size < math.inf else 1.0)


def _plane(tensor: Tensor, axis: int, sample: int, channel: int) -> Tensor:
    own = tensor[sample]
    if tensor.dim() == 3:
        return own if axis == 2 else own.T
    return own[channel].reshape(-1, own.shape[-1])


def _planes(baseline: Tensor, candidate: Tensor, difference: Tensor) -> dict[str, Plane]:
    """All three, made small: the two sides on one scale, the difference on one that has 0 in its middle."""
    size = min(SIDE, baseline.shape[0]), min(SIDE, baseline.shape[1])
    means = [adaptive_avg_pool2d(each[None], size)[0] for each in (baseline, candidate)]
    high, low = (adaptive_max_pool2d(sign * difference[None], size)[0] * sign for sign in (1, -1))
    extreme = torch.where(high.abs() >= low.abs(), high, low)
    both = torch.stack(means)
    finite = both[both.isfinite()]
    low_, high_ = (float(x) for x in finite.aminmax()) if finite.numel() else (0.0, 0.0)
    known = extreme[extreme.isfinite()]
    largest = float(known.abs().amax()) if known.numel() else 0.0
    return {
        "baseline": _coded(means[0], low_, high_),
        "candidate": _coded(means[1], low_, high_),
        "difference": _coded(extreme, -largest, largest),
    }


def _coded(plane: Tensor, low: float, high: float) -> Plane:
    low, high = _rounded(low), _rounded(high)
    width = high - low
    steps = (plane - low) * (STEPS / width) if 0 < width < math.inf else torch.full_like(plane, STEPS // 2)
    codes = steps.nan_to_num(0, 0, 0).round().clamp(0, STEPS)
    codes = codes.masked_fill(~plane.isfinite(), STEPS + 1).to(torch.uint8).cpu()
    return Plane(
        rows=plane.shape[0],
        columns=plane.shape[1],
        low=low,
        high=high,
        values=base64.b64encode(bytes(codes.flatten().tolist())).decode("ascii"),
    )


def _histogram(difference: Tensor) -> Histogram:
    unequal = difference[difference != 0]
    finite = unequal[unequal.isfinite()]
    largest = float(finite.abs().amax()) if finite.numel() else 0.0
    counts: tuple[int, ...] = ()
    if 0 < largest < math.inf:
        bins = ((finite / largest + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
        counts = tuple(torch.bincount(bins.cpu(), minlength=BINS).tolist())
    return Histogram(
        low=_rounded(-largest),
        high=_rounded(largest),
        counts=counts,
        equal=difference.numel() - unequal.numel(),
        nonfinite=unequal.numel() - finite.numel(),
    )


def _rounded(value: float) -> float:
    """Six digits: more would be noise in a picture, and long lines in a file."""
    return float(f"{value:.6g}")
