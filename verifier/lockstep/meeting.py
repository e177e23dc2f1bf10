"""Two tensors that meet at a pair: what is measured there, and what is known once a device has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.graph.tensors import dense
from verifier.metrics import Measurement, Moments, collect, compare, keep, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.records import Comparison


class Meeting(NamedTuple):
    """Two tensors that were compared at a pair: their shapes, and their moments if the shapes agree."""

    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    moments: Moments | None

    @property
    def identical(self) -> bool:
        """Whether both hold the same numbers, NaNs and infinities included."""
        return self.moments is not None and (self.moments.identical or not self.moments.elements)

    @property
    def error(self) -> Comparison | None:
        """How far the second lies from the first; None where the shapes differ."""
        return None if self.moments is None else compare(self.moments)

    def merge(self, other: Meeting) -> Meeting:
        """This meeting and the same one on a further batch; the shapes are those of the first."""
        if self.moments is None or other.moments is None:
            return self if self.moments is None else other
        return self._replace(moments=self.moments.merge(other.moments))


class Met(NamedTuple):
    """Two tensors that were read, much of which a CUDA device may still have to compute."""

    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    measurement: Measurement | None

    @property
    def differs(self) -> bool:
        """Whether overwriting would change anything, as far as that is known without waiting for a device."""
        if self.measurement is None:
            return False
        return self.measurement.moments is None or not self.measurement.moments.identical

    @property
    def same(self) -> bool:
        """Whether both are known to hold the same numbers."""
        return self.measurement is not None and not self.differs


# Beyond this a number is a mask, as `finfo.min` is: it stands for minus infinity and has no size to measure by.
_MASK = 1e30


def met_at(reference: Tensor, other: Tensor, offset: int) -> Met:
    """Measure two tensors where they lie; on CUDA nothing waits."""
    reference, other = dense(reference), dense(other)
    shape, other_shape = tuple(reference.shape), tuple(other.shape)
    if shape != other_shape:
        return Met(shape, other_shape, None)
    found = measure(reference, other, offset)
    moments = found.moments
    if moments is not None and not moments.identical and _holds_masks(moments):
        # Relative to masks any error is nothing, so what both sides mask counts as 0. `finfo.min` is another number
        # in every dtype, and means the same in all of them.
        masked = (reference.sign() == other.sign()) & masks(reference) & masks(other)
        found = measure(reference.masked_fill(masked, 0), other.masked_fill(masked, 0), offset)
    return Met(shape, other_shape, found)


def masks(tensor: Tensor) -> Tensor:
    """Where a tensor holds numbers that stand for an infinity."""
    if (
        tensor.is_floating_point() and torch.finfo(tensor.dtype).max < _MASK
    ):  # few operators know the narrow ones
        return torch.zeros_like(tensor, dtype=torch.bool)
    return (tensor.abs() >= _MASK) & tensor.isfinite()


def _holds_masks(moments: Moments) -> bool:
    """Whether the baseline's mean square is such that numbers beyond `_MASK` must be among them."""
    return moments.finite > 0 and not moments.raw_aa / moments.finite < _MASK**2 / moments.elements


def meet(tensors: Sequence[Tensor], others: Sequence[Tensor], offset: int = 0) -> tuple[Meeting, ...]:
    """A meeting of each of `tensors` with its counterpart."""
    return resolve([met_at(a, b, offset) for a, b in zip(tensors, others, strict=True)])


def resolve(met: Sequence[Met]) -> tuple[Meeting, ...]:
    """What was measured, once the device has come to its end."""
    moments = iter(collect([m.measurement for m in met if m.measurement is not None]))
    return tuple(
        Meeting(m.shape, m.other_shape, None if m.measurement is None else next(moments)) for m in met
    )


def kept(met: Sequence[Met], offset: int) -> tuple[Met, ...]:
    """Copies that hold nothing a device will write again, with coordinates that start at `offset`."""
    copies = iter(keep([m.measurement for m in met if m.measurement is not None], offset))
    return tuple(m if m.measurement is None else m._replace(measurement=next(copies)) for m in met)
