"""Which dtype two tensors are compared in, and how a piece gets there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Every value of these is a float32 exactly. Everything else goes to float64, which holds all of them but
# integers beyond 2^53.
_FLOAT32_HOLDS = frozenset(
    {torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32, torch.bool}
    | {torch.uint8, torch.int8, torch.uint16, torch.int16}
    | {dtype for name in dir(torch) if name.startswith("float8_") for dtype in (getattr(torch, name),)}
)
_LONG_INTEGERS = frozenset({torch.int64, torch.uint64})


def common_dtype(baseline: torch.dtype, candidate: torch.dtype) -> torch.dtype:
    """The narrowest of float32, float64, complex64 and complex128 that holds the values of both."""
    small = baseline in _FLOAT32_HOLDS and candidate in _FLOAT32_HOLDS
    if baseline.is_complex or candidate.is_complex:
        return torch.complex64 if small else torch.complex128
    return torch.float32 if small else torch.float64


def parts(dtype: torch.dtype) -> int:
    """How many real numbers an element is compared as."""
    return 2 if dtype.is_complex else 1


def as_reals(tensor: Tensor) -> Tensor:
    """A contiguous piece, flat, a complex one as its real and imaginary parts in turn."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def loses_integers(baseline: torch.dtype, candidate: torch.dtype) -> bool:
    """Whether unequal integers may become equal floats."""
    return baseline in _LONG_INTEGERS and candidate in _LONG_INTEGERS


def keep_integers_apart(baseline: Tensor, candidate: Tensor, a: Tensor, b: Tensor) -> None:
    """Move b one unit in the last place away from a where unequal integers were rounded to the same float64.

    `a` and `b` are the float64 images of integer pieces, flat; `b` is changed in place.
    """
    unequal = baseline.reshape(-1).ne(candidate.reshape(-1)) & a.eq(b)
    b.copy_(torch.where(unequal, b.nextafter(torch.full_like(b, torch.inf)), b))
