"""What a cell costs on a CUDA device: `nox -s bench -- device`.

Times are between CUDA events around each, which count what Python makes the device wait for. `one batch` is a cell's
free pass from opening the models to the numbers on the CPU. `further batches` is what each batch after the first
costs, which the device runs as one recorded launch; what they measured is fetched once, at the end. Memory is the
peak of torch's allocator.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING

import torch

from tests.benchmarks.subjects import resnet50
from verifier.bench.measuring import Kinds, measure, recorded
from verifier.cells import Cell
from verifier.environment import tf32
from verifier.lockstep import Replay
from verifier.models.casting import arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.subjects import Prepared


def device(rounds: int, batch_size: int = 64, image_size: int = 224) -> None:
    """Time and memory of ResNet-50 in bfloat16 and float32."""
    if not torch.cuda.is_available():
        print("\nno CUDA device: nothing measured there")
        return
    print(f"\n{torch.cuda.get_device_name()}, ResNet-50, batch {batch_size}, {image_size} px")
    subject = resnet50(batch_size, image_size)
    for dtype in ("bfloat16", "float32"):
        with tf32(allowed=False), torch.no_grad():
            _cell(subject, Cell("cuda", dtype), rounds)


def _cell(prepared: Prepared, cell: Cell, rounds: int) -> None:
    bench = prepared.bench.at(cell=cell)
    args, _ = arguments(prepared.inputs, cell)
    given = type(prepared.inputs)(args, {}, info=prepared.inputs.info)
    models = [bench.copied(side) for side in ("baseline", "candidate")]

    def bare() -> None:
        for model in models:
            model(*args)

    functions: dict[str, Callable[[], object]] = {
        "two bare forwards": bare,
        "one batch": lambda: measure(bench, [given], forced=False),
        "one batch, free and forced": lambda: measure(bench, [given]),
    }
    for function in functions.values():
        function()  # kernels are compiled and algorithms chosen, some of which need more memory
    peaks = {name: _peak(function) for name, function in functions.items()}
    for name, forced in (("further batches", False), ("further batches, free and forced", True)):
        replay = recorded(bench, given, Kinds(free=True, forced=forced))
        assert isinstance(replay, Replay), replay
        functions[name] = partial(replay, args, 0)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 3):
        for name, function in functions.items():
            taken = _milliseconds(function)
            if number >= 3:  # kernels compiled, algorithms chosen, memory at hand
                seconds[name].append(taken)
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["two bare forwards"], strict=True))
        memory = f"peak {peaks[name] / 2**20:.0f} MiB" if name in peaks else ""
        print(
            f"  {cell.dtype:9} {name:33} {statistics.median(values):7.2f} ms   x {ratio:.2f}"
            f"   (min {min(values):.2f}, max {max(values):.2f})   {memory}"
        )


def _milliseconds(function: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _peak(function: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())
