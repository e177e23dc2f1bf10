"""Room for models whose modules call each other deeper than Python allows by itself while they are watched."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

# Frames that watching adds to each module that is inside another: of a call with hooks, and of a copy that goes
# through a class's own __reduce_ex__. And those of what is done at the innermost operator.
_A_MODULE = 16
_INNERMOST = 500


@contextlib.contextmanager
def room_for(*models: nn.Module) -> Iterator[None]:
    """A recursion limit under which whatever runs alone runs watched as well; it is put back afterwards.

    It grows with the depth of these modules and no further: a model that calls itself without end still ends in
    Python's error, and not in the end of the process, since frames of C code stand between those of Python.
    """
    before = sys.getrecursionlimit()
    deepest = max(_depth(model) for model in models)
    sys.setrecursionlimit(before + _A_MODULE * deepest + _INNERMOST)
    try:
        with warnings.catch_warnings():
            # Where a model does end in that error, so do the hooks that would close its calls; the error says enough.
            warnings.filterwarnings("ignore", message="module forward hook with ``always_call")
            yield
    finally:
        sys.setrecursionlimit(before)


def _depth(model: nn.Module) -> int:
    """How many modules are inside each other where it is deepest; each is looked at once."""
    found, seen, level = 0, {id(model)}, [model]
    while level:
        found += 1
        inside = [child for module in level for child in module._modules.values() if child is not None]
        level = list({id(child): child for child in inside if id(child) not in seen}.values())
        seen.update(map(id, level))
    return found
