"""Two tensors brought to one real dtype, and what rounding alone may do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.metrics.convert import common_dtype, keep_integers_apart, loses_integers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SAMPLE = 4096
PIECE = 1 << 17  # elements that stay in a processor's cache
# How many roundings of an element are still called rounding, and the largest relative error that ever is,
# unless one rounding exceeds it (float8).
ROUNDINGS = 8
LARGEST = 0.01


@dataclass(frozen=True, slots=True)
class Reals:
    """Candidate and baseline as contiguous tensors of one dtype, float32 or float64, on the baseline's device.

    `tolerance` is the relative error that a few roundings in the coarser of the two original dtypes make,
    `floor` the absolute one next to zero. Complex tensors gain a last axis of size 2.
    """

    candidate: Tensor
    baseline: Tensor
    tolerance: float
    floor: float

    def close(self, candidate: Tensor, baseline: Tensor) -> Tensor:
        """Which elements agree up to rounding; equal infinities do, and NaN with NaN."""
        allowed = torch.maximum(candidate.abs(), baseline.abs()).mul_(self.tolerance).add_(self.floor)
        near = candidate.sub(baseline).abs_() <= allowed.nan_to_num_(0, 0, 0)
        return near | same(candidate, baseline)

    def fits(self, candidate: Tensor, baseline: Tensor) -> bool:
        """Whether all elements agree up to rounding."""
        return everywhere(self.close, candidate, baseline)


def reals(candidate: Tensor, baseline: Tensor) -> Reals:
    """Both tensors, whose shapes may differ, made comparable; neither is changed."""
    baseline_, candidate_ = _plain(baseline), _plain(candidate).to(baseline.device)
    dtype = common_dtype(baseline_.dtype, candidate_.dtype)
    b, c = baseline_.to(dtype).contiguous(), candidate_.to(dtype).contiguous()
    if b.shape == c.shape and loses_integers(baseline_.dtype, candidate_.dtype):
        keep_integers_apart(baseline_.contiguous(), candidate_.contiguous(), b.view(-1), c.view(-1))
    if dtype.is_complex:
        b, c = torch.view_as_real(b), torch.view_as_real(c)
    tolerance, floor = (
        max(pair) for pair in zip(_rounding(baseline_.dtype), _rounding(candidate_.dtype), strict=True)
    )
    return Reals(c, b, tolerance, floor)


def same(candidate: Tensor, baseline: Tensor) -> Tensor:
    """Which elements are equal, NaN and NaN included."""
    equal = candidate.eq(baseline)
    return equal if bool(equal.all()) else equal | (candidate.isnan() & baseline.isnan())


def identical(candidate: Tensor, baseline: Tensor) -> bool:
    """Whether all elements are equal, NaN and NaN included."""
    return everywhere(same, candidate, baseline)


def everywhere(holds: Callable[[Tensor, Tensor], Tensor], candidate: Tensor, baseline: Tensor) -> bool:
    """Whether `holds` is true of all elements: piece by piece, so that the first that fails ends it."""
    if candidate.is_contiguous() and baseline.is_contiguous():
        candidate, baseline = candidate.view(-1), baseline.view(-1)
    if candidate.numel() <= PIECE:
        return bool(holds(candidate, baseline).all())
    rows = max(1, PIECE // (candidate.numel() // len(candidate)))
    return all(
        bool(holds(one, other).all())
        for one, other in zip(torch.split(candidate, rows), torch.split(baseline, rows), strict=True)
    )


def sample_positions(elements: int, device: torch.device) -> Tensor:
    """Flat positions of at most 4096 elements to look at first: all of them, or some drawn with a fixed seed."""
    if elements <= SAMPLE:
        return torch.arange(elements, device=device)
    generator = torch.Generator().manual_seed(elements)
    return torch.randint(elements, (SAMPLE,), generator=generator, device="cpu").to(device)


def number(value: float) -> str:
    """`value` for a sentence: whole numbers and their inverses as such, others to six digits."""
    whole = _whole(value)
    if whole:
        return str(whole)
    inverse = _whole(1 / value) if value else 0
    return f"{'-' if inverse < 0 else ''}1/{abs(inverse)}" if inverse else f"{value + 0.0:.6g}"


def is_simple(value: float) -> bool:
    """Whether `value` is a whole number or the inverse of one, to a millionth of it."""
    return bool(value) and bool(_whole(value) or _whole(1 / value))


def _whole(value: float) -> int:
    """The whole number that `value` is to a millionth of it, up to 100000; 0: none."""
    if not 0.5 < abs(value) < 1e5:
        return 0
    return round(value) if abs(value - round(value)) <= 1e-6 * abs(value) else 0


def _plain(tensor: Tensor) -> Tensor:
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    elif plain.layout != torch.strided:
        plain = plain.to_dense()
    return plain.resolve_conj().resolve_neg()


def _rounding(dtype: torch.dtype) -> tuple[float, float]:
    """Relative and absolute error of a few roundings; integers only meet those of float64."""
    if not (dtype.is_floating_point or dtype.is_complex):
        dtype = torch.float64
    info = torch.finfo(dtype)
    return min(ROUNDINGS * info.eps, max(info.eps, LARGEST)), 4 * info.smallest_normal * info.eps
