"""Why what a training leaves behind differs: averages of the weights it went through, or what was never written."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.training.fitting import near
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from verifier.training.history import Course

_CLOSE = 1e-9  # relative to how far the tensor went
_ITERATIONS = 20
_LATEST = 64  # batches after which a mean may begin


class _Origin(NamedTuple):
    """What a tensor is, of those it went through; `kept` is an average's share of itself a batch."""

    code: str
    told: str
    kept: float | None = None


def cause(course: Course, baseline: Tensor, candidate: Tensor, *, buffer: bool) -> TrainingCause | None:
    """Why a tensor ends otherwise: None unless it is known what the candidate's is.

    Args:
        course: What both were on the way.
        baseline: Its elements at the end, float64.
        candidate: The candidate's.
        buffer: Whether it is a buffer.
    """
    b, c = _origin(course, baseline), _origin(course, candidate)
    if c is None:
        return None
    there = f", the baseline's {b.told}" if b is not None else ""
    if c.code == "initial":
        what = "buffer-never-moved" if buffer else "weight-never-moved"
        return TrainingCause(
            code=what, summary=f"it still has its initial values: it was never written{there}", confirmed=True
        )
    if b is None:
        return None
    exchanged = b.kept is not None and c.kept is not None and near(b.kept, 1 - c.kept, _CLOSE)
    more = " (the shares are exchanged)" if exchanged else ""
    return TrainingCause(code="average-different", summary=f"it is {c.told}{there}{more}", confirmed=True)


def _origin(course: Course, end: Tensor) -> _Origin | None:
    for origin, made in _known(course):
        if _agree(course, made, end):
            return origin
    for where, start, values in _averages(course):
        kept = _solved(functools.partial(_average, start, values), end, course)
        if kept is not None:
            return _Origin("average", f"an average{where} that keeps {kept:.6g} of itself a batch", kept)
    return None


def _known(course: Course) -> Iterator[tuple[_Origin, Tensor]]:
    yield _Origin("initial", "what it was at first"), course.start
    if not course.batches:
        return
    yield _Origin("last", "what the last batch left"), course.batches[-1]
    if len(course.batches) > 1:
        yield _Origin("before", "what the last batch but one left"), course.batches[-2]
        yield _Origin("mean", "the mean over all batches"), torch.stack(course.batches).mean(0)
        for late in range(1, min(len(course.batches) - 1, _LATEST)):
            yield (
                _Origin("mean", f"the mean over the batches from batch {late} on"),
                torch.stack(course.batches[late:]).mean(0),
            )
        whole = torch.stack([course.start, *course.batches])
        yield _Origin("mean", "the mean over all batches and the initial values"), whole.mean(0)


def _averages(course: Course) -> Iterator[tuple[str, Tensor, Sequence[Tensor]]]:
    yield "", course.start, course.batches
    if course.batches:
        yield " begun after the first batch", course.batches[0], course.batches[1:]
        yield " of what each batch began with", course.start, [course.start, *course.batches[:-1]]
        yield " begun at zero", torch.zeros_like(course.start), course.batches


def _average(start: Tensor, values: Sequence[Tensor], kept: float) -> Tensor:
    made = start
    for value in values:
        made = kept * made + (1 - kept) * value
    return made


def _solved(make: Callable[[float], Tensor], wanted: Tensor, course: Course) -> float | None:
    """The share in 0..1 that gives the tensor, as short as it can be written; None where none does."""
    for first in (0.9, 0.99, 0.5, 0.1, 0.999):
        kept = first
        for _ in range(_ITERATIONS):
            residual = wanted - make(kept)
            slope = (make(kept + 1e-7) - make(kept - 1e-7)) / 2e-7
            size = float(slope.square().sum())
            if not size:
                break
            kept = min(max(kept + float((slope * residual).sum()) / size, 0.0), 1.0)
        if not 0 < kept < 1 or not _agree(course, make(kept), wanted):
            continue
        short = (float(f"{kept:.{digits}g}") for digits in range(1, 10))
        return next((each for each in short if _agree(course, make(each), wanted)), kept)
    return None


def _agree(course: Course, made: Tensor, wanted: Tensor) -> bool:
    """Whether two are the same next to how far the tensor went."""
    went = max((float((each - course.start).norm()) for each in course.batches), default=0.0)
    rounding = 64 * 2.0**-53 * float(wanted.norm())
    return float((made - wanted).norm()) <= _CLOSE * went + rounding
