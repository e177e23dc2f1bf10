"""Reducing two dense tensors on CUDA with one fused kernel that reads each once.

One launch queues a pair: a few programs for each multiprocessor add up their shares of everything (`triton_code`).
Only `measure` decides whether this module is imported: Triton comes with torch on Linux and nowhere else.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import triton

from verifier.metrics import partials
from verifier.metrics.partials import Partials
from verifier.metrics.triton_code import reduce_share
from verifier.metrics.walk import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

REALS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
# Elements the frame is fitted to, a power of two. Sums lose a factor of at most about n / SAMPLE of accuracy
# where the sample looks like nothing else in the tensor (see `Frame`), and next to nothing where it does. Every
# program reads them: more would take longer than most tensors do.
SAMPLE = 512
# Elements a program reads at once in float64, and its warps: two elements for each thread. Nine float64 sums for each
# of them then take about 130 registers a thread.
BLOCK = 256
WARPS = 4
# In float32 a thread reads 16 bytes of either tensor at once, as much as one instruction loads, and that twice.
LINES = 2 * 32 * WARPS
BYTES = 16
# Smaller tensors take no time worth saving and are computed in float64 throughout.
NARROW_FROM = 1 << 16
# As many as run at once. Of 2 to 16 programs with 1 to 4 loads and 64 to 158 registers, 2 with 2 loads are fastest
# where the tensors are equal, measured on an H200 (all pairs of ResNet-50, batch 64: bfloat16 6 ms, float32 8 ms).
PROGRAMS_PER_MULTIPROCESSOR = 2
# Products may be added without being rounded first: y - x has none in it, and in y - lead * x it is exact.
# Said at every launch, since Triton 3.9 warns that its default will change.
FUSION = True
# Dimensions a walk may have once those that follow each other in both orders are one.
DIMENSIONS = 4


def on(device: torch.device) -> Callable[[Tensor, Tensor, int], Partials | None]:
    """`reduce` for tensors of this CUDA device; whatever Triton lacks to run there is raised now."""
    interpreted = not isinstance(reduce_share, triton.JITFunction)
    if interpreted:
        raise RuntimeError("kernels are interpreted (TRITON_INTERPRET): far slower than torch operations")
    programs = PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    few = torch.zeros(16, device=device)
    reduce(few, few, 0, programs)
    return functools.partial(reduce, programs=programs)


def reduce(
    baseline: Tensor, candidate: Tensor, offset: int, programs: int, narrow_from: int = NARROW_FROM
) -> Partials | None:
    """Queue the reduction of two tensors of equal shape, or return None where that takes other code.

    Taken are tensors on one device, of any two of the dtypes in `REALS`, not empty, whose elements are dense
    and in the same order in memory: contiguous, channels-last, or permuted so that up to `DIMENSIONS` groups
    of dimensions remain. From `narrow_from` elements on, what is not float64 is multiplied in float32.
    """
    if baseline.dtype not in REALS or candidate.dtype not in REALS or baseline.device != candidate.device:
        return None
    if baseline.is_neg() or candidate.is_neg():  # their memory holds the opposite of what they stand for
        return None
    n = baseline.numel()
    walk = plan(baseline, candidate)
    if n == 0 or not walk.dense:
        return None
    sizes, strides = merged(walk.sizes, walk.strides)
    missing = (DIMENSIONS - len(sizes)) * (1,)
    if len(sizes) > DIMENSIONS:
        return None
    values = torch.empty((1 + programs, partials.WIDTH), dtype=torch.float64, device=baseline.device)
    width = max(baseline.itemsize, candidate.itemsize)
    # Triton launches on the current device, whatever the tensors' is.
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        reduce_share[(programs,)](
            walk.baseline,
            walk.candidate,
            values,
            n,
            *(*missing, *sizes)[1:],
            *missing,
            *strides,
            len(sizes) == 1,
            width < torch.float64.itemsize and n >= narrow_from,
            SAMPLE,
            LINES,
            BYTES // width,
            BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=FUSION,
        )
    return Partials(values, tuple(baseline.shape), offset)


def merged(sizes: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A walk's `sizes` and `strides` with dimensions that are one longer dimension in both orders made one."""
    found = [(sizes[0], strides[0])]
    for size, stride in zip(sizes[1:], strides[1:], strict=True):
        outer, outer_stride = found[-1]
        if outer_stride == size * stride:
            found[-1] = (outer * size, stride)
        else:
            found.append((size, stride))
    return tuple(size for size, _ in found), tuple(stride for _, stride in found)
