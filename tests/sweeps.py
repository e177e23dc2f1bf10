"""Sweeps over many cases of one kind: a few always run, `nox -s thorough` runs the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def swept(cases: Iterable[Any], always: Callable[[Any], bool] | Iterable[Any]) -> list[Any]:
    """`cases` as parameters; those that do not `always` run are marked `thorough`."""
    chosen = always if callable(always) else set(always).__contains__
    cases = list(cases)
    assert any(map(chosen, cases)), "none of these cases would always run"
    return [
        case if chosen(case) else pytest.param(*_parts(case), marks=pytest.mark.thorough) for case in cases
    ]


def _parts(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
