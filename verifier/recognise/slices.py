"""Finding the order in which the slices of one tensor appear in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# More slices than these are not searched: exactly, by sorting; nearly, by comparing all with all.
MOST_EXACT = 1 << 20
MOST_NEAR = 1024
COLUMNS = 256
LARGEST_BLOCKS = 16


def order_of_slices(candidate: Tensor, baseline: Tensor, axis: int) -> Tensor | None:
    """`order` such that candidate slice i looks like baseline slice order[i], equal up to rounding; unverified.

    Slices are told apart by a random projection in float64. None: the projections are not the same numbers.
    """
    if not 2 <= baseline.shape[axis] <= MOST_EXACT:
        return None
    scale = float(baseline.nan_to_num(0, 0, 0).abs().amax())
    if not scale > 0:
        return None
    of_candidate, of_baseline = (_project(tensor, axis, scale).sort() for tensor in (candidate, baseline))
    gap = (of_candidate.values - of_baseline.values).abs().amax()
    if not float(gap) <= 1e-4 * float(of_baseline.values.abs().amax()):
        return None
    order = torch.empty_like(of_baseline.indices)
    order[of_candidate.indices] = of_baseline.indices
    return order


def nearest_slices(candidate: Tensor, baseline: Tensor, axis: int) -> Tensor | None:
    """The same for slices of finite numbers that are only alike, by the distances of all pairs."""
    slices = baseline.shape[axis]
    if not 2 <= slices <= MOST_NEAR:
        return None
    rest = [size for i, size in enumerate(baseline.shape) if i != axis]
    generator = torch.Generator().manual_seed(slices)
    columns = [torch.randint(size, (COLUMNS,), generator=generator, device="cpu") for size in rest]
    index = (torch.arange(slices, device=baseline.device)[:, None], *(c.to(baseline.device) for c in columns))
    some, known = (tensor.movedim(axis, 0)[index].reshape(slices, -1) for tensor in (candidate, baseline))
    order = torch.cdist(some, known).argmin(1)
    return order if bool((order.sort().values == torch.arange(slices, device=order.device)).all()) else None


def order_in_words(order: list[int]) -> str:
    """The pattern in a permutation, or its beginning."""
    n = len(order)
    moved = [i for i, source in enumerate(order) if i != source]
    if order == list(range(n))[::-1]:
        return "in reverse order"
    if len(moved) == 2:
        return f"{moved[0]} and {moved[1]} exchanged"
    if all(source == (i + order[0]) % n for i, source in enumerate(order)):
        return f"rotated by {min(order[0], n - order[0])} of {n}"
    for blocks in range(2, min(LARGEST_BLOCKS, n // 2) + 1):
        size = n // blocks
        if n % blocks == 0 and all(
            source == order[i - i % size] + i % size for i, source in enumerate(order)
        ):
            return f"blocks of {size} in the order {', '.join(str(s // size) for s in order[::size])}"
    for groups in range(2, n // 2 + 1):
        size = n // groups
        if n % groups == 0 and order == [g * size + i for i in range(size) for g in range(groups)]:
            return f"interleaved, as after {groups} groups of {size} were shuffled"
    excerpt = ", ".join(f"{i} from {order[i]}" for i in moved[:4])
    return f"{len(moved)} of {n} moved: {excerpt}{', ...' if len(moved) > 4 else ''}"


def _project(tensor: Tensor, axis: int, scale: float) -> Tensor:
    """One float64 number for each slice: all other axes contracted with random vectors."""
    # NaN and infinities become numbers of their own, since a sum would not tell them apart
    left = (tensor.to(torch.float64) / scale).nan_to_num_(1.7, 2.3, -2.9)
    generator = torch.Generator().manual_seed(axis)

    def weights(size: int) -> Tensor:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
        return drawn.to(tensor.device)

    shape = list(tensor.shape)
    while len(shape) > axis + 1:
        left = left.reshape(-1, shape[-1]) @ weights(shape.pop())
    for size in shape[:axis]:
        left = weights(size) @ left.reshape(size, -1)
    return left.reshape(-1)
