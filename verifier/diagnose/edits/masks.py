"""Masks: what is hidden is to count for nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from verifier.diagnose.edits.edit import Edit
from verifier.graph import KeptCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from verifier.diagnose.edits.context import Context

MASK = "mask-different"
_ENDLESS = float("-inf")


def hidden(context: Context) -> Iterator[Edit]:
    """A mask of zeros and ones, or of flags, by which something is multiplied, added or not used at all."""
    program = context.program
    made = [context.tensor(key) for key in context.tensors]
    constants = [
        tensor
        for _, step in context.steps()
        for tensor, source in zip(step.call.operands, step.sources, strict=True)
        if source is None
    ]
    masks = [each for each in (*made, *constants) if _is_mask(each)]
    for (at, step), mask, slot in itertools.product(context.steps(), masks, (0, 1)):
        source = step.sources[slot] if len(step.sources) == _BOTH else None
        if step.op not in {"add", "mul", "sub", "where"} or source is None:
            continue
        for shown in (mask.bool(), ~mask.bool()):
            call = _filled(context.tensor(source), shown)
            if call is not None:
                yield Edit(
                    MASK,
                    f"{step.op} stands where what the mask hides is to be filled with -inf (masked_fill)",
                    "fill what is hidden with -inf in its place",
                    program.with_step(at, replace(step, op="masked_fill", call=call, sources=(source, None))),
                    (step.name,),
                )


_BOTH = 2


def _is_mask(tensor: Tensor) -> bool:
    if tensor.dtype == torch.bool:
        return bool(tensor.any()) and not bool(tensor.all())
    if tensor.dim() < 2:
        return False
    ones, zeros = tensor == 1, tensor == 0
    return bool((ones | zeros).all() & ones.any() & zeros.any())


def _filled(given: Tensor, shown: Tensor) -> KeptCall | None:
    try:
        shown.expand_as(given)
    except RuntimeError:
        return None
    return KeptCall.of(torch.masked_fill, (given, ~shown, _ENDLESS), {}, set())
