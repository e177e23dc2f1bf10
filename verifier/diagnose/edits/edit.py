"""One edit of a program: what it changes, in words, and the program after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from verifier.recognise.axes import as_text

if TYPE_CHECKING:
    from verifier.diagnose.edits.program import Program


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a program.

    Attributes:
        code: What the cause goes by.
        summary: What is wrong, in words that hold at every site it is wrong at.
        remedy: What to do.
        program: The program after it.
        at: Names of the sites whose calls it changes.
        known: Whether the baseline literally has it.
        evidence: More about it.
        reread: Of an edit that makes a call read another tensor, the key of that which it reads and of the other.
    """

    code: str
    summary: str
    remedy: str
    program: Program
    at: tuple[str, ...]
    known: bool = False
    evidence: tuple[str, ...] = ()
    reread: tuple[int, int] | None = None


_SHOWN = 4


def shown(value: Any) -> str:
    """A value for a sentence: tensors of at most four numbers as they are, larger ones by shape and statistics."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, float):
        return (
            f"{value:.6g}" if value != int_of(value) else f"{value:.1f}" if abs(value) < 1e6 else f"{value:g}"
        )
    if isinstance(value, list | tuple):
        return as_text(tuple(value)) if all(isinstance(item, int) for item in value) else str(tuple(value))
    if isinstance(value, slice):
        parts = ("" if part is None else str(part) for part in (value.start, value.stop, value.step))
        return ":".join(parts)
    return str(value)


def int_of(value: float) -> float:
    """The whole number next to it; the number itself where there is none."""
    return round(value) if abs(value) < 1e15 else value


def _tensor(tensor: Tensor) -> str:
    plain = tensor.detach()
    if plain.numel() <= _SHOWN:
        numbers = ", ".join(f"{item:.6g}" for item in plain.double().flatten().tolist())
        return f"({numbers})"
    numbers_ = plain.double()
    low, high = (float(each) for each in numbers_.aminmax())
    return (
        f"a tensor of shape {as_text(tuple(plain.shape))} from {low:.4g} to {high:.4g}, "
        f"mean {float(numbers_.mean()):.4g}"
    )
