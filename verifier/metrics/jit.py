"""The one place that meets numba, which ships no type information."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

# Sums may be reordered and fused, which is what lets LLVM vectorise them. NaN and infinity keep their
# meaning: without `nnan` and `ninf` every comparison with them is what IEEE 754 says.
FAST = {"reassoc", "contract", "nsz", "arcp"}


def compiled(function: F) -> F:
    """`function` compiled on first call, outside the interpreter lock, kept on disk where that is possible."""
    options = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return cast("F", numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return cast("F", numba.njit(**options)(function))
