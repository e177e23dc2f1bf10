"""Recognising numbers that went through a narrower format."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from verifier.diagnose.reals import everywhere, identical, same, sample_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TF32_DROPS = 13  # of float32's 23 mantissa bits


def rounded_through(candidate: Tensor, baseline: Tensor) -> tuple[str, ...]:
    """Formats through which the baseline becomes exactly the candidate, the likeliest first.

    Both are contiguous, of the same shape and of one dtype, float32 or float64.
    """
    if not baseline.numel():
        return ()
    flat = baseline.view(-1)
    positions = sample_positions(flat.numel(), flat.device)
    some, expected = flat[positions], candidate.view(-1)[positions]
    return tuple(
        name
        for name, through in FORMATS.items()
        if not (name == "float32" and baseline.dtype == torch.float32)
        and identical(expected, through(some))
        and everywhere(functools.partial(_is_rounded, through), candidate, baseline)
    )


def _is_rounded(through: Callable[[Tensor], Tensor], candidate: Tensor, baseline: Tensor) -> Tensor:
    return same(candidate, through(baseline))


def _cast(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(dtype).to(tensor.dtype)


def _tf32(*, nearest: bool) -> Callable[[Tensor], Tensor]:
    """To TF32's 10 mantissa bits: to the nearest, ties away from zero, as NVIDIA's conversion does, or cut off."""

    def through(tensor: Tensor) -> Tensor:
        single = tensor.to(torch.float32)
        bits = single.contiguous().view(torch.int32)
        half = 1 << (TF32_DROPS - 1) if nearest else 0
        kept = (bits + half) >> TF32_DROPS << TF32_DROPS
        return torch.where(single.isfinite(), kept.view(torch.float32), single).to(tensor.dtype)

    return through


FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": _cast(torch.float32),
    "bfloat16": _cast(torch.bfloat16),
    "float16": _cast(torch.float16),
    "TF32": _tf32(nearest=True),
    "TF32, cut off": _tf32(nearest=False),
    "float8_e4m3fn": _cast(torch.float8_e4m3fn),
    "float8_e5m2": _cast(torch.float8_e5m2),
}
