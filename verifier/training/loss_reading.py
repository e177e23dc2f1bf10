"""What autograd remembers of how a loss was made: the numbers it was multiplied with, divided by or averaged over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 12
_MEAN = 1  # of torch's enumeration of reductions


class LossReading(NamedTuple):
    """How a loss was reduced: the product of all it was divided by, and those numbers one by one.

    `divisor` is 1 where nothing is known of it.
    """

    divisor: float = 1.0
    counts: tuple[float, ...] = ()


def read(loss: object) -> LossReading:
    """Read the factors of a loss off its graph, from the loss inwards to the first step that is no factor.

    What is read are `MulBackward`, `DivBackward` and `MeanBackward` with a number, and the mean that
    `nll_loss` takes over the weights of the labels that count.
    """
    counts: tuple[float, ...] = ()
    with contextlib.suppress(RuntimeError):  # what autograd saved is gone, or in the hands of hooks
        counts = tuple(_counts(getattr(loss, "grad_fn", None)))
    divisor = 1.0
    for count in counts:
        divisor *= count
    return LossReading(divisor, counts)


def _counts(node: Any) -> Iterator[float]:
    for _ in range(_DEEPEST):
        if node is None:
            return
        name = node.name()
        number = _number(getattr(node, "_saved_other", None))
        if name.startswith("DivBackward") and number:
            yield number
        elif name.startswith("MulBackward") and number:
            yield 1 / number
        elif name.startswith("MeanBackward0"):
            yield float(node._saved_self_sym_numel)
        elif name.startswith(("NllLoss", "MseLoss", "BinaryCrossEntropy", "SmoothL1", "Huber")):
            if getattr(node, "_saved_reduction", None) == _MEAN:
                yield from _averaged(node)
            return
        elif not name.startswith(
            ("SumBackward", "ViewBackward", "ReshapeAliasBackward", "ToCopyBackward", "Neg")
        ):
            return
        node = node.next_functions[0][0] if node.next_functions else None


def _averaged(node: Any) -> Iterator[float]:
    count = _number(getattr(node, "_saved_total_weight", None))
    if count is None:
        inside = getattr(node, "_saved_self", None)
        count = float(inside.numel()) if isinstance(inside, torch.Tensor) else None
    if count:
        yield count


def _number(value: object) -> float | None:
    """A finite number other than 0, also from a tensor that holds one; None for anything else."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.dtype is torch.bool:
            return None
        value = value.detach().double().item()
    return float(value) if isinstance(value, int | float) and value == value and value != 0 else None  # noqa: PLR0124
