"""What is quantised in a form: weights that it keeps in few bits, and tensors that it rounds on their way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from verifier.forms.form import Form
    from verifier.graph import Graph


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantiser rounds to: (code - zero) * scale, for whole codes from `low` to `high`.

    Attributes:
        scale: One step, in the tensor's unit: one number, or as many as the tensor has slices along `axis`.
        zero: The code of 0, likewise.
        low: The smallest code.
        high: The largest.
        axis: The dimension that scales and zero points are along; None for one of each.
    """

    scale: Tensor
    zero: Tensor
    low: int
    high: int
    axis: int | None = None

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of that shape has a scale for each of its slices."""
        if self.axis is None:
            return self.scale.numel() == self.zero.numel() == 1
        here = -len(shape) <= self.axis < len(shape)
        return here and self.scale.numel() == self.zero.numel() == shape[self.axis]

    def along(self, values: Tensor, dimensions: int) -> Tensor:
        """Scales or zero points in float64, to be broadcast over a tensor of so many dimensions."""
        values = values.detach().double()
        if self.axis is None:
            return values.reshape(())
        shape = [1] * dimensions
        shape[self.axis] = -1
        return values.reshape(shape)

    def steps(self, x: Tensor) -> Tensor:
        """`x` in steps from 0, in float64, not rounded."""
        return x.detach().double() / self.along(self.scale, x.dim())

    def codes(self, x: Tensor) -> Tensor:
        """The codes of `x`, in float64: of two that are as near the even one."""
        codes = self.steps(x).round() + self.along(self.zero, x.dim())
        return codes.clamp(self.low, self.high)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for, in float64."""
        return (codes.double() - self.along(self.zero, codes.dim())) * self.along(self.scale, codes.dim())

    def clipped(self, x: Tensor) -> Tensor:
        """Which elements of `x` lie more than half a step beyond the last code."""
        exact = self.steps(x) + self.along(self.zero, x.dim())
        return (exact > self.high + _MIDDLE) | (exact < self.low - _MIDDLE)

    def times(self, factor: float) -> Grid:
        """The same with a larger or smaller step."""
        return Grid(self.scale * factor, self.zero, self.low, self.high, self.axis)

    def same(self, other: Grid) -> bool:
        """Whether both round to the same numbers."""
        mine = (self.low, self.high, self.axis, self.scale.shape, self.zero.shape)
        if mine != (other.low, other.high, other.axis, other.scale.shape, other.zero.shape):
            return False
        return torch.equal(self.scale, other.scale) and torch.equal(self.zero, other.zero)


UNCUT = torch.finfo(torch.float32).max  # the ceiling where there is no activation, and nothing is cut off
_MIDDLE = 0.501  # steps: where the range ends in the middle of one, as 127.5 steps do, rounding decides


class Layer(NamedTuple):
    """A node or a module that computes with rounded numbers.

    Attributes:
        name: What leaves it in float is told by: a node's name, a module's.
        op: What it computes.
        result: What its result is called.
        excluded: Whether a user can leave it in float by its name alone.
    """

    name: str
    op: str
    result: str
    excluded: bool = True


class Stored(NamedTuple):
    """A weight that is kept in few bits.

    Attributes:
        name: What it is called where it is kept in float.
        layers: The layers that read it, by name.
        codes: What is kept.
        grid: What the codes stand for.
        bias: Whether it is added to products, in steps of their own.
        step: Of a bias, the product of the steps of what is multiplied, which are its own; None if not known.
    """

    name: str
    layers: tuple[str, ...]
    codes: Tensor
    grid: Grid
    bias: bool = False
    step: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """What it stands for, in float64."""
        return self.grid.values(self.codes)


class Rounding(NamedTuple):
    """A tensor that is rounded while the model runs.

    Attributes:
        name: What the tensor is called.
        layers: The layers that need it rounded: without all of them nothing would round it.
        readers: Those of them that read it.
        grid: What it is rounded to; None where that is made of the tensor itself, each time.
        back: What its codes are read as, likewise; NaN for a scale or zero point that is the one made each time.
        inside: Whether a run can show it.
        positive: Whether nothing in it can be below 0, as far as the operators tell that make it.
        bounds: What all its readers cut it to: beyond that it need not be kept.
    """

    name: str
    layers: tuple[str, ...]
    readers: tuple[str, ...]
    grid: Grid | None
    back: Grid | None
    inside: bool = True
    positive: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)


class Shown(NamedTuple):
    """What a run of a quantised form gave: what it returns, and tensors inside by name."""

    outputs: tuple[Tensor, ...]
    values: Mapping[str, Tensor]


class Run(Protocol):
    """Runs a form."""

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shown:
        """What it returns on some inputs."""


class Quantised(Protocol):
    """A form whose quantisers can be taken out.

    Attributes:
        kind: What the form is, with an article.
        layers: What can be left in float, in order of execution.
        stored: Its weights in few bits.
        roundings: What it rounds on the way.
        exclusion: Where a user names layers that are left in float.
        stage: What it is called as it is shipped; empty where it is run as it is.
        watched: Whether the form's own program rounds as the form does.
    """

    kind: str
    layers: tuple[Layer, ...]
    stored: tuple[Stored, ...]
    roundings: tuple[Rounding, ...]
    exclusion: str
    stage: str
    watched: bool

    def cutting(self, ceilings: Mapping[str, float]) -> Quantised:
        """The same, where it is known what the activation behind some layers cuts off above.

        A converter leaves an activation out where rounding cuts off as much.

        Args:
            ceilings: The largest number behind a layer, by its name; `UNCUT` where there is no activation.
        """

    def undone(self, weights: Mapping[str, Tensor]) -> Form:
        """The form with nothing rounded, with other weights in place of those that it stores, by name."""

    def keeping(
        self,
        layers: Collection[str],
        weights: Mapping[str, Tensor],
        show: Sequence[str] = (),
        *,
        shipped: bool = False,
    ) -> Run:
        """The form with some layers in float.

        Args:
            layers: What is left in float, by name; a tensor is rounded while any other layer needs it.
            weights: Their weights by name; one that is missing is what its codes stand for.
            show: Tensors inside that are shown, by name, as they are before they are rounded.
            shipped: Whether it is run as it is shipped, fused.
        """

    def sites(self, graph: Graph) -> Mapping[str, int]:
        """For each layer its site in the graph of the undone program, as far as it has one."""
