"""Memoised methods of a model, computed anew while copies of it run side by side.

`functools.lru_cache` on a method belongs to the class, so all copies share it: of two that take turns, one finds or
loses what the other has computed, and neither does the same in each of its runs.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextlib.contextmanager
def unmemoised(*models: nn.Module) -> Iterator[None]:
    """Let memoised methods of the models' modules compute whenever they are called; afterwards all is as it was."""
    kinds = {kind for model in models for module in model.modules() for kind in type(module).__mro__}
    with contextlib.ExitStack() as around:
        for kind in kinds:
            for name, value in list(vars(kind).items()):
                for holder, attribute, memo, instead in _memos(kind, name, value):
                    setattr(holder, attribute, instead)
                    around.callback(setattr, holder, attribute, memo)
        yield


def _memos(
    kind: type, name: str, value: object
) -> Iterator[tuple[type | types.CellType, str, object, object]]:
    """A method that is memoised itself, or that a decorator has wrapped around one: where, what, and what instead."""
    wrapper = type(value) if isinstance(value, staticmethod | classmethod) else None
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if isinstance(function, functools._lru_cache_wrapper):
        plain = function.__wrapped__
        yield kind, name, value, plain if wrapper is None else wrapper(plain)
    elif isinstance(function, types.FunctionType):
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                memo = cell.cell_contents
                if isinstance(memo, functools._lru_cache_wrapper):
                    yield cell, "cell_contents", memo, memo.__wrapped__
