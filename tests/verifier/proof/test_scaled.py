"""What is multiplied and added behind a product is known from the other model's tensors, whatever goes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier.diagnose.reruns import Half
from verifier.graph import record
from verifier.lockstep import Lane
from verifier.proof.scaled import scaled

if TYPE_CHECKING:
    from verifier.diagnose.neighbourhood import Neighbourhood


def _norm(channels: int, *, convolution: bool) -> Any:
    norm: Any = (nn.BatchNorm2d if convolution else nn.BatchNorm1d)(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


class Normed(nn.Module):
    """A product with a bias and a norm, or a factor that is learnt, behind it."""

    def __init__(self, channels: int, *, norm: bool, convolution: bool) -> None:
        super().__init__()
        self.product: Any = nn.Conv2d(3, channels, 2) if convolution else nn.Linear(3, channels)
        shape = (channels, 1, 1) if convolution else (channels,)
        self.factor = None if norm else nn.Parameter(torch.rand(shape) + 0.5)
        self.norm: Any = _norm(channels, convolution=convolution) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(x)
        if self.factor is not None:
            return y * self.factor
        z: Tensor = self.norm(y)
        return z


class Moved(nn.Module):
    """The same as a product without a bias, a factor and a shift, kept in float32."""

    factor: Tensor
    shift: Tensor

    def __init__(self, of: Normed) -> None:
        super().__init__()
        wide = {name: tensor.double() for name, tensor in of.state_dict().items()}
        self.weight = nn.Parameter(of.product.weight.detach().clone())
        if of.norm is not None:
            factor = wide["norm.weight"] / (wide["norm.running_var"] + of.norm.eps).sqrt()
            shift = wide["norm.bias"] + (wide["product.bias"] - wide["norm.running_mean"]) * factor
        else:
            factor = wide["factor"].flatten()
            shift = wide["product.bias"] * factor
        shape = (-1, 1, 1) if isinstance(of.product, nn.Conv2d) else (-1,)
        self.exact = {"factor": factor.reshape(shape), "shift": shift.reshape(shape)}
        for name, tensor in self.exact.items():
            self.register_buffer(name, tensor.float())

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight) if self.weight.dim() == 4 else F.linear(x, self.weight)
        z: Tensor = y * self.factor + self.shift
        return z


def seen(model: nn.Module, x: Tensor) -> tuple[Neighbourhood, Tensor]:
    """All that a model does, as calls in float64, and what it gives."""
    model = model.double().eval()
    graph = record(model, [x], {})
    lane = Lane(
        "candidate", model, graph, (x,), {}, stops={len(graph.sites) - 1}, keep=range(len(graph.calls))
    )
    while lane.advance() is not None:
        pass
    lane.close()
    with torch.no_grad():
        given: Tensor = model(x)
    side = Half(graph, graph.sites[-1], tuple(graph.sites[:-1])).neighbourhood(lane.kept, given)
    assert side is not None
    return side, given


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("convolution", [True, False])
def test_numbers_that_were_rounded_are_known(convolution: bool, norm: bool, samples: int) -> None:
    torch.manual_seed(0)
    of = Normed(5, norm=norm, convolution=convolution)
    moved = Moved(of)
    x = torch.randn((samples, 3, 4, 4) if convolution else (samples, 3), dtype=torch.float64)
    other, wanted = seen(of, x)
    side, given = seen(moved, x)
    found = scaled(side, other, wanted, 1e-12)
    assert found is not None
    assert not torch.allclose(given, wanted, rtol=1e-10, atol=0)  # what was kept is rounded
    assert {*found} == ({"factor", "shift"} if norm else {"shift"})
    for name, tensor in found.items():
        assert tensor.numpy() == pytest.approx(moved.exact[name].numpy(), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("wrong", ["factor", "shift", "weight", "eps"])
@pytest.mark.parametrize("samples", [1, 4])
def test_numbers_that_are_no_rounding_are_not(wrong: str, samples: int) -> None:
    torch.manual_seed(0)
    of = Normed(5, norm=True, convolution=False)
    moved = Moved(of)
    if wrong == "eps":
        of.norm.eps = 1.1e-5
    else:
        with torch.no_grad():
            tensor: Tensor = getattr(moved, wrong)
            tensor[1] += 2e-5
    x = torch.randn(samples, 3, dtype=torch.float64)
    other, wanted = seen(of, x)
    assert scaled(seen(moved, x)[0], other, wanted, 1e-12) is None
