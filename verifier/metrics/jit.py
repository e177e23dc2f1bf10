"""The one place that meets numba, which ships no type information."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

# Sums may be reordered and fused, which is what lets LLVM vectorise them. NaN and infinity keep their
# meaning: without `nnan` and `ninf` every comparison with them is what IEEE 754 says.
FAST = {"reassoc", "contract", "nsz", "arcp"}
# Differences of nearly equal numbers are exact in the order they are written in, and only then.
ORDERED = {"contract", "nsz"}


def compiled(function: F) -> F:
    """`function` compiled at its first call, run without the interpreter lock, kept on disk if possible."""
    return _compiled(function, FAST)


def ordered(function: F) -> F:
    """`function` compiled with its operations in the order written, for use inside a `compiled` loop."""
    return _compiled(function, ORDERED)


def _compiled(function: F, fastmath: set[str]) -> F:
    options = functools.partial(numba.njit, nogil=True, fastmath=fastmath, error_model="numpy")
    try:
        return cast("F", options(cache=True)(function))
    except RuntimeError:  # neither the package's nor the user's cache directory can be written
        return cast("F", options(cache=False)(function))
