"""The one place that meets numba, which ships no type information.

What it compiles is kept beside the package, or, where nothing can be written there, in the user's cache directory
(`numba` in `$XDG_CACHE_HOME` or `~/.cache`), or where NUMBA_CACHE_DIR says. Nowhere else: what is read from there is
run, so nobody else may have written it.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
        dispatcher: Any = options(cache=True)(function)
    except RuntimeError:  # neither the package's nor the user's cache directory can be written
        return cast("F", options(cache=False)(function))
    if hasattr(dispatcher, "_cache"):  # numba's own name for it
        dispatcher._cache = _Kept(dispatcher._cache)
    return cast("F", dispatcher)


class _Kept:
    """Numba's cache of a function as far as it can be had: a full disk or a damaged file costs time, no more."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return self._cache.load_overload(signature, target)
        except OSError:
            return None
        except Exception:  # unpickling what was cut off raises anything
            with contextlib.suppress(OSError):
                self._cache.flush()  # else it would be met again, and nothing could be added to it
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        with contextlib.suppress(Exception):
            self._cache.save_overload(signature, compiled)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
