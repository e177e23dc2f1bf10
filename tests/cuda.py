"""What tests that need a CUDA device share."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def needs_cuda(function: Any) -> Any:
    """Mark a test that needs a CUDA device."""
    for mark in MARKS:
        function = mark(function)
    return function


@contextlib.contextmanager
def not_waiting() -> Iterator[None]:
    """Everything queued before is done; inside, whatever waits for the device raises."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns once that it does not know every such operation
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
