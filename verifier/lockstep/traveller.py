"""A lane on its way from pair to pair, and what is written into it there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from verifier.errors import ModelError
from verifier.graph.tensors import same_memory
from verifier.lockstep.meeting import masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.lockstep.lane import Lane


class Traveller:
    """A lane and the copies it left at pairs it passed before the others came there.

    One that holds other numbers than its own is `forced`; it may then be `lost`, which says why.
    """

    def __init__(
        self,
        lane: Lane,
        pair_of: Mapping[int, int],
        passing: Callable[[int, Tensor], None],
        rounded: Mapping[int, torch.dtype],
    ) -> None:
        self.lost = ""
        self.forced = False
        self._lane = lane
        self._pair_of = pair_of
        self._passing = passing
        self._rounded = rounded
        self._left: dict[int, Tensor] = {}
        self._over: frozenset[int] = frozenset()

    def reach(self, pair: int) -> Tensor | None:
        """The lane's tensor at `pair`: where it stands after going there, or the copy it left; None if it is lost."""
        if pair in self._left:
            return self._left.pop(pair)
        while True:
            site = self._advance()
            if self.lost:
                return None
            if site is None or self._lane.tensor is None:
                raise AssertionError(f"{self._lane.role} ended before pair {pair}")
            here = self._pair_of.get(site)
            if here == pair:
                return self._lane.tensor
            if here is None:
                self._passing(site, self._lane.tensor)
            elif here not in self._over:
                self._left[here] = self._lane.tensor.clone()
                if here in self._rounded:
                    as_rounded(self._lane.tensor, self._rounded[here], self._lane)

    def come(self, pair: int, over: Sequence[int]) -> Tensor | None:
        """The same of a lane that has waited so far: it passes pairs that are over."""
        self._over = frozenset(over)
        return self.reach(pair)

    def finish(self) -> None:
        """Run the lane to its end."""
        while (site := self._advance()) is not None:
            if site not in self._pair_of and self._lane.tensor is not None:
                self._passing(site, self._lane.tensor)

    def _advance(self) -> int | None:
        try:
            return None if self.lost else self._lane.advance()
        except ModelError as error:
            if not self.forced:
                raise
            self.lost = str(error)
            return None


def overwrite(tensor: Tensor, reference: Tensor, lane: Lane) -> bool:
    """Write into a lane's tensor where it lies, but not into state nor where elements overlap; whether it did."""
    if tensor.is_nested or tensor.layout != torch.strided:
        with contextlib.suppress(RuntimeError):  # where other elements are stored, it stays as it is
            tensor.copy_(reference)
            return True
        return False
    overlapping = any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    if overlapping or same_memory(tensor) in lane.state_memory:
        return False
    tensor.copy_(reference)
    return True


def as_rounded(tensor: Tensor, dtype: torch.dtype, lane: Lane) -> Tensor:
    """`tensor` with its values rounded to `dtype`, in place where it can be overwritten."""
    if not (tensor.is_floating_point() and dtype.is_floating_point):
        return tensor
    values = tensor.to(dtype).to(tensor.dtype)
    strided = tensor.layout == torch.strided and not tensor.is_nested
    # A mask is the lowest number of its dtype, not minus infinity.
    if strided and bool((infinite := values.isinf()).any()) and bool((infinite & masks(tensor)).any()):
        most = torch.finfo(dtype).max
        values = torch.where(masks(tensor), tensor.clamp(-most, most), values)
    overwrite(tensor, values, lane)
    return values
