"""torch's compiler as if nothing had been compiled in this process, and left as it was."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType


_APART = "isolate_recompiles"
APART: dict[str, Any] = {_APART: True} if _APART in signature(torch.compile).parameters else {}
"""What keeps versions of a function apart, so that one caller's count for nothing where another compiles it."""


@dataclass
class Shapes:
    """The sizes that a program was compiled for so far: where they differ, the compiler takes them for dynamic."""

    seen: Any = None


@contextlib.contextmanager
def undisturbed(shapes: Shapes, *, draws: bool, rounding: bool = False) -> Iterator[None]:
    """Compile inside as a process would that has seen only `shapes`; what is compiled is dropped at the end.

    Errors are raised, whatever the caller has set, and no environment variable or stance turns the compiler off.

    Args:
        shapes: What was seen before; it is brought up to date.
        draws: Whether the program draws random numbers: the code then draws those that torch would.
        rounding: Whether generated code rounds between operators as torch's own kernels do.
    """
    import torch._dynamo as dynamo  # noqa: PLC0415 - a second, and only where something is compiled
    import torch._dynamo.pgo as sizes  # noqa: PLC0415
    import torch._inductor.config as inductor  # noqa: PLC0415

    before = [(code, _entries(code)) for code in _compiled()]
    # What is there already counts towards the limit beyond which a function is left as it is.
    room = max((len(entries) for _, entries in before), default=0)
    known: Any = dynamo.config  # its attributes are made at import
    limits = {
        name: getattr(known, name) + room for name in ("recompile_limit", "accumulated_recompile_limit")
    }
    settings: dict[str, Any] = {"suppress_errors": False, "disable": False, **limits}
    wanted = [*["fallback_random"] * draws, *["emulate_precision_casts"] * rounding]
    others, sizes._CODE_STATE = sizes._CODE_STATE, shapes.seen
    try:
        with (
            dynamo.set_stance("default"),
            known.patch(settings),
            inductor.patch({name: True for name in wanted if hasattr(inductor, name)}),
        ):
            yield
    finally:
        shapes.seen, sizes._CODE_STATE = sizes._CODE_STATE, others
        _drop({id(code): entries for code, entries in before})


def breaks() -> dict[str, int]:
    """How often the compiler left a graph since the process began, by the first line of why."""
    from torch._dynamo.utils import counters  # noqa: PLC0415

    found: dict[str, int] = {}
    for reason, count in counters["graph_break"].items():
        line = next(iter(reason.splitlines()), "").strip()
        found[line] = found.get(line, 0) + count
    return found


def _compiled() -> list[CodeType]:
    """The functions of this process that were compiled."""
    from torch._dynamo.convert_frame import input_codes  # noqa: PLC0415

    return [code for reference in list(input_codes.seen) if (code := reference()) is not None]


def _entries(code: CodeType) -> list[str]:
    """The compiled versions of a function."""
    return [str(each.compile_id) for each in torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code)]


def _drop(before: dict[int, list[str]]) -> None:
    """Drop what was compiled since: a function as a whole where that takes nothing from the caller but time."""
    from torch._dynamo.guards import DeletedGuardManagerWrapper  # noqa: PLC0415

    for code in _compiled():
        known = before.get(id(code))
        if not (known and APART):  # what is left of a version counts, where versions are not kept apart
            torch._C._dynamo.eval_frame.reset_code(code)
            continue
        for entry in torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code):
            state = entry.guard_manager.extra_state
            if str(entry.compile_id) not in known and state is not None:
                state.invalidate(entry, DeletedGuardManagerWrapper("what it was compiled for is gone"))
