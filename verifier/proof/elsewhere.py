"""Both models on inputs that were not given, but are drawn from them, and with other weights where these hide.

What the given numbers do not choose (a branch, an expert, a row of a table) is read on others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.errors import GraphDepartureError, ModelError
from verifier.graph.tensors import leaves_in, mapped
from verifier.lockstep import Comparing, Plan, run
from verifier.proof.excited import SAME, excited
from verifier.proof.unread import fills

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from torch import Tensor

    from verifier.align import Pair
    from verifier.bench.bench import Bench
    from verifier.inputs import Inputs


class Elsewhere(NamedTuple):
    """Inputs that were not given: how they come of those that were, in words, and whether they stay near them."""

    words: str
    inputs: Inputs
    near: bool = True


def alike_elsewhere(bench: Bench, apart: Collection[Pair] = (), same: float = SAME) -> bool:
    """Whether the two models agree on other inputs, too, and with other weights.

    What a mask of the program cuts off stays cut off. Without one input that both take nothing is known.

    Args:
        bench: The two models.
        apart: Pairs that differ in what nothing reads. Numbers so large that they come near what fills a mask there
            say nothing of it.
        same: The relative error that is no difference.
    """
    tried, filled = False, fills(bench, apart)
    for way in other_inputs(bench):
        agree = agree_on(bench, way, same)
        if agree is False and filled - fills(bench.at(inputs=way.inputs), filled):
            continue
        if agree is False:
            return False
        tried |= agree is True
    other = excited(bench)
    return tried and (other is None or agree_on(other.bench, Elsewhere("", bench.inputs), same) is not False)


def agree_on(bench: Bench, way: Elsewhere, same: float = SAME) -> bool | None:
    """Whether both return the same; None where nothing is known, since one of them does not take it."""
    lanes = [bench.lane(side, inputs=way.inputs, stops=()) for side in ("baseline", "candidate")]
    try:
        (outputs,) = run(lanes, Plan([[], []], [Comparing(0, 1)])).outputs
    except GraphDepartureError:
        return (
            False if way.near else None
        )  # numbers that have nothing to do with the given ones may take any way
    except ModelError:
        return None
    return all(met.error is not None and met.error.within(same) for met in outputs)


def other_inputs(bench: Bench) -> Iterator[Elsewhere]:
    """Inputs drawn from the given ones: scaled, and made anew with whole numbers as large as they may be."""
    largest = _largest(bench)

    def drawn(seed: int) -> Elsewhere:
        inputs = _changed(bench.inputs, _drawn(seed, largest if seed % 2 else None))
        return Elsewhere("inputs drawn anew", inputs, near=False)

    yield Elsewhere("inputs times -1", _changed(bench.inputs, _scaled(-1.0)))
    yield from map(drawn, range(2))  # what shows is most likely to show by now
    for factor in (10.0, 100.0):
        yield Elsewhere(f"inputs times {factor:g}", _changed(bench.inputs, _scaled(factor)))
    yield from map(drawn, range(2, _DRAWS))


_DRAWS = 6


def inputs_within(bench: Bench) -> Iterator[Elsewhere]:
    """Inputs that might have been given as well: in another order, and within their range where it has both signs.

    None where several tensors are given, which may say something of each other.
    """
    given = bench.inputs
    leaves = [leaf for _, leaf in leaves_in((given.args, given.kwargs)) if isinstance(leaf, torch.Tensor)]
    if len(leaves) != 1 or not leaves[0].dim() or leaves[0].shape[-1] < 2:
        return
    (tensor,) = leaves
    if tensor.is_floating_point() and bool(tensor.isfinite().all()):
        low, high = (float(each) for each in tensor.aminmax())
        if low < 0 < high:
            smaller = min(-low, high) / max(-low, high)
            yield Elsewhere("inputs of the other sign", _changed(given, lambda t: -smaller * t))
            for seed in range(_ORDERS):
                drawn = _drawn(seed, None)(tensor).clamp(low, high)
                yield Elsewhere("inputs drawn anew", _changed(given, partial(_instead, drawn)))
    for seed in range(_ORDERS):
        order = torch.randperm(tensor.shape[-1], generator=torch.Generator().manual_seed(seed))
        change = partial(torch.index_select, dim=-1, index=order.to(tensor.device))
        yield Elsewhere("inputs in another order", _changed(given, change))


_ORDERS = 4


def _instead(other: Tensor, _tensor: Tensor) -> Tensor:
    return other


def _changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    args, kwargs = mapped((inputs.args, inputs.kwargs), change)
    return replace(inputs, args=args, kwargs=kwargs, other=None)


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor * factor if tensor.is_floating_point() else _shuffled(tensor)


def _shuffled(tensor: Tensor) -> Tensor:
    """Whole numbers in another order; flags stay, since they mask, and what is sorted, since it cuts."""
    if not _chooses(tensor):
        return tensor
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))
    return tensor.reshape(-1)[order.to(tensor.device)].reshape(tensor.shape)


def _chooses(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers that choose: tokens, say."""
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        return False
    return torch.unique(tensor).numel() > _FLAGS and not (
        tensor.dim() == 1 and bool((tensor.diff() >= 0).all())
    )


_FLAGS = 2  # values of a mask


def _largest(bench: Bench) -> float:
    """The largest factor, up to 2, by which whole numbers may grow so that the baseline still has a row for them."""
    given = bench.inputs
    if not any(
        isinstance(leaf, torch.Tensor) and _chooses(leaf) for _, leaf in leaves_in((given.args, given.kwargs))
    ):
        return 1.0
    low, high = 1.0, 2.0
    for turn in range(_HALVINGS):
        factor = high if turn == 0 else (low + high) / 2
        lane = bench.lane("baseline", inputs=_changed(given, _raised(factor)), stops=())
        try:
            run([lane], Plan([[]], []))
        except (GraphDepartureError, ModelError):
            high = factor
        else:
            low = factor
            if turn == 0:
                break
    return low


_HALVINGS = 6


def _raised(factor: float) -> Callable[[Tensor], Tensor]:
    """The largest of whole numbers that choose, made larger."""

    def changed(tensor: Tensor) -> Tensor:
        if not _chooses(tensor):
            return tensor
        most = tensor.max()
        return torch.where(tensor == most, (most * factor).to(tensor.dtype), tensor)

    return changed


def _drawn(seed: int, largest: float | None) -> Callable[[Tensor], Tensor]:
    """Fresh numbers of the spread of the given ones, and whole ones of their range, or from 0 to `largest` times it.

    What has no such row or token fails on them, and nothing is known from that draw.
    """

    def changed(tensor: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if tensor.is_floating_point() and tensor.numel() > 1 and bool(tensor.isfinite().all()):
            numbers = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            return (numbers * tensor.double().std().cpu() + tensor.double().mean().cpu()).to(tensor)
        if _chooses(tensor):
            least, most = int(tensor.min()), int(tensor.max())
            if largest is not None:
                least, most = min(0, least), int(most * largest)
            turn = torch.arange(tensor.numel()) + seed // 2 * tensor.numel()
            numbers = least + turn % (most - least + 1)
            order = torch.randperm(tensor.numel(), generator=generator)
            return numbers[order].reshape(tensor.shape).to(tensor)
        return tensor

    return changed
