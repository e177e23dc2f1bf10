"""Recognising numbers that went through a narrower format."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.recognise.reals import everywhere, identical, same, sample_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TF32_DROPS = 13  # of float32's 23 mantissa bits

# Everything within 6 % of 1.0 becomes 1.0 in float8, so that a tensor of ones is what any other near it is rounded
# to. Rounding is told by the last digit of a format, which half of all rounded numbers need; by how many numbers it
# has to be, where a format has so few digits that those people write down have them too.
FILLED = 0.2  # share of the numbers that changed
COARSE = 4  # digits
LEAST = 8  # different numbers that changed, for a coarse format


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
        and _fills(GRIDS[name], candidate, baseline)
        and everywhere(functools.partial(_is_rounded, through), candidate, baseline)
    )


class Grid(NamedTuple):
    """The numbers of a format: how many binary digits follow the first, and the exponent of the least normal one."""

    digits: int
    least: int

    @classmethod
    def of(cls, dtype: torch.dtype) -> Grid:
        """The grid of a floating-point dtype."""
        info = torch.finfo(dtype)
        return cls(-_exponent(info.eps), _exponent(info.smallest_normal))

    def needed(self, numbers: Tensor) -> Tensor:
        """Which of these numbers of the format, finite and in float64, have a 1 as their last digit."""
        exponents = torch.frexp(numbers).exponent.sub(1).clamp(min=self.least)
        return torch.ldexp(numbers.abs(), self.digits - exponents).remainder(2).eq(1)


def _exponent(power: float) -> int:
    return math.frexp(power)[1] - 1


def _fills(grid: Grid, candidate: Tensor, baseline: Tensor) -> bool:
    """Whether the numbers that changed into the candidate's need a format of that many digits."""
    c, b = candidate.view(-1), baseline.view(-1)
    changed = c[c.ne(b) & c.isfinite() & b.isfinite()]
    some = changed[sample_positions(len(changed), changed.device)].double()
    if len(torch.unique(some)) < (LEAST if grid.digits <= COARSE else 1):
        return False
    return float(grid.needed(some).double().mean()) >= FILLED


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

GRIDS: dict[str, Grid] = {
    **{
        name: Grid.of(getattr(torch, name))
        for name in ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
    },
    **dict.fromkeys(("TF32", "TF32, cut off"), Grid(23 - TF32_DROPS, -126)),
}
