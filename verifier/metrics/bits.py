"""Tensors as the integers their bits spell: equality that tells NaN payloads and the sign of zero apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_bits(tensor: Tensor) -> Tensor:
    """`tensor` as signed integers of its elements' size; a complex one with a last dimension of two parts.

    A view wherever torch can give one. No arithmetic is done, so flushing of subnormal numbers changes nothing.
    """
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_INTEGERS[tensor.element_size()])


def same_bits(baseline: Tensor, candidate: Tensor) -> Tensor:
    """Whether two tensors of equal shape and dtype hold the same bits, as a bool tensor on the baseline's device."""
    return as_bits(baseline).eq(as_bits(candidate).to(baseline.device)).all()
