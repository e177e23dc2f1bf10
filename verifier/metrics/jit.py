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
    """`function` compiled at its first call, run without the interpreter lock, kept on disk if possible."""
    try:
        return _compiled(function, cache=True)
    except RuntimeError:  # neither the package's nor the user's cache directory can be written
        return _compiled(function, cache=False)


def _compiled(function: F, *, cache: bool) -> F:
    decorate = numba.njit(cache=cache, nogil=True, fastmath=FAST, error_model="numpy")
    return cast("F", decorate(function))
