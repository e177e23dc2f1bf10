"""A lockstep run on CUDA that is recorded once and launched as a whole: Python's part is paid once, not per batch."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from verifier.graph import Graph
    from verifier.lockstep.passes import Queued


def unreplayable(graphs: Sequence[Graph]) -> str:
    """What these models do besides computing that has to be done anew for every batch; empty where that is nothing.

    What else depends on the numbers (control flow that reads a tensor's value) makes the recording itself fail.
    """
    for graph in graphs:
        if graph.draws:
            return "a model draws random numbers"
        if graph.writes_state:
            return "a model writes into its own state"
        if not graph.suspendable:
            return "a model needs a thread of its own"
    return ""


class Replay:
    """What `body` queues on a CUDA device, as a CUDA graph.

    Args:
        body: Queues a lockstep run that reads its inputs from `inputs`; called once, and computes nothing then.
        inputs: Tensors on the device, which every call overwrites.

    Raises whatever stops the recording: an operation that waits for the device, memory that runs out.
    """

    def __init__(self, body: Callable[[], Queued], inputs: Sequence[Tensor]) -> None:
        self._inputs = tuple(inputs)
        self._graph = torch.cuda.CUDAGraph()
        device = self._inputs[0].device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        before = torch.cuda.current_stream(device)
        try:
            with (
                _no_collection(),
                torch.cuda.device(device),
                torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._queued = body()
        finally:
            # Some torch releases leave a recording that failed on its own stream.
            if torch.cuda.current_stream(device) != before:
                torch.cuda.set_stream(before)

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether these are inputs like those that it was recorded with."""
        return [(t.shape, t.dtype) for t in inputs] == [(t.shape, t.dtype) for t in self._inputs]

    def __call__(self, inputs: Sequence[Tensor], offset: int) -> Queued:
        """Run on other inputs, whose first sample is the one numbered `offset`; nothing waits."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._queued.kept(offset)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for cycles, which could free a tensor of another stream while that is forbidden."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
