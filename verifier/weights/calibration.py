"""Drawing weights under which every parameter of a model shows in its output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.graph.operators import operator_name
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from verifier.graph import Graph

# Affine parameters are drawn from +-[low, high] around their neutral value, which they avoid: a parameter of
# exactly 0 or 1 cannot reveal that it is missing, swapped or applied twice.
_GAIN = ((0.6, 0.9), (1.1, 1.4))
_SHIFT = (0.1, 0.3)
_QUIET = 0.25

# Share of a channel's spread by which calibrated statistics miss those of the calibration input.
_JITTER = 0.2

# A channel whose variance on the calibration input is almost nothing would be scaled up without bound.
_VARIANCE_FLOOR = 1e-3


def varies(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds more than one value."""
    if not tensor.is_floating_point() or tensor.numel() < 2:
        return False
    first, last = tensor[(0,) * tensor.dim()], tensor[(-1,) * tensor.dim()]
    return bool(first != last) or bool((tensor != first).any())


def calibrated(
    model: nn.Module,
    state: Mapping[str, Tensor],
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    seed: int,
    quiet: Collection[str] = (),
    own: Collection[str] = (),
) -> dict[str, Tensor]:
    """Tensors under which every parameter of `model` shows in its output and nothing overflows.

    Tensors that are constant after construction (gains of 1, shifts of 0, zero heads, layer scales) are drawn
    from a seeded generator; random ones stay. Then the model runs once, and every batch norm's running mean
    and variance are set to those of its own input, layer by layer, so that activations keep their scale at any
    depth (the idea of data-dependent initialisation: Mishkin & Matas, "All you need is a good init", 2016).
    Gains named in `quiet` are drawn smaller: where every residual branch is as loud as its trunk, a random
    network is chaotic and multiplies rounding errors by a constant per block. Those named in `own` stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {name for name, _ in model.named_parameters()}
    drawn = {
        name: _draw(tensor, generator, _QUIET if name in quiet else 1.0)
        if name in parameters and name not in own
        else tensor
        for name, tensor in state.items()
    }
    args, kwargs = inputs
    copy = copy_with(model, drawn, lambda tensor: tensor, role="baseline")
    with torch.no_grad(), _Calibration(generator):
        copy(*args, **kwargs)
    measured = state_of(copy)
    return {name: drawn[name] if name in parameters or name in own else measured[name] for name in state}


class _Calibration(torch.overrides.TorchFunctionMode):
    """Sets each batch norm's running statistics to nearly those of its input, just before it uses them."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def _measured(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance a channel, moved a little: exact ones would hide a norm that uses the batch's own."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        spread, centre = torch.var_mean(x.double().cpu(), dim=axes, correction=0)
        spread = spread.clamp(min=float(spread.median()) * _VARIANCE_FLOOR or 1.0)
        moved = 2 * torch.rand(2, len(spread), generator=self._generator, dtype=torch.float64) - 1
        return centre + _JITTER * moved[0] * spread.sqrt(), spread * (1 + _JITTER * moved[1])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if operator_name(func) == "batch_norm":
            found = dict(zip(("input", "running_mean", "running_var"), args, strict=False)) | kwargs
            x, mean, variance = found["input"], found.get("running_mean"), found.get("running_var")
            if mean is not None and variance is not None and not kwargs.get("training", False):
                for statistic, value in zip((mean, variance), self._measured(x), strict=True):
                    statistic.copy_(value)
        return func(*args, **kwargs)


def branch_ends(graph: Graph) -> set[str]:
    """Gains of norms whose output is added to a trunk that no norm has just passed."""
    gains: dict[int, str] = {}
    for site in graph.comparable:
        names = [use.name for use in site.tensors if use.role == "weight"]
        if site.op.endswith("_norm") and names:
            gains[site.index] = names[0]
    found = set()
    for site in graph.comparable:
        if site.op == "add":
            normed = [source for source in site.inputs if source in gains]
            if len(normed) == 1 and len(site.inputs) > 1:
                found.add(gains[normed[0]])
    return found


def _draw(tensor: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """A replacement for a tensor that is constant; any other tensor itself."""
    if not tensor.is_floating_point() or tensor.numel() < 2 or varies(tensor):
        return tensor
    value = float(tensor.flatten()[0])
    shape = tensor.shape
    sign = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    if value == 0 and tensor.dim() > 1:  # a zero head: Kaiming's scale for the fan-in
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(tensor[0].numel())
    elif value == 0:
        drawn = sign * (_SHIFT[0] + unit * (_SHIFT[1] - _SHIFT[0]))
    elif value == 1 or abs(value) < 1e-2:
        low, high = (side[0] + unit * (side[1] - side[0]) for side in _GAIN)
        drawn = torch.where(sign > 0, high, low) * scale
    else:
        return tensor
    return drawn.to(tensor.dtype).to(tensor.device)
