"""Faults in the tensors a module computes with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.mutants.planting import Place, Spot, fault, isa

conv = isa(nn.Conv2d)
linear = isa(nn.Linear)
weighted = isa(nn.Conv2d, nn.Linear)
normalising = isa(nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def keeps_statistics(place: Place) -> bool:
    return isinstance(place.module, nn.BatchNorm2d) and not place.module.training


def biased(place: Place) -> bool:
    return weighted(place) and place.module.bias is not None


@fault("weight-perturbed", where=weighted)
def _(spot: Spot) -> None:
    weight = spot.module.weight
    weight += 1e-4 * weight.abs().mean() * spot.noise(weight)


@fault("weight-element-wrong", "weight-perturbed", where=weighted)
def _(spot: Spot) -> None:
    weight = spot.module.weight
    weight.view(-1)[spot.rng.randrange(weight.numel())] += 0.1


@fault("weight-scaled", where=weighted)
def _(spot: Spot) -> None:
    spot.module.weight *= spot.rng.choice([0.5, 2.0, -1.0, 1.001])


@fault("gamma-scaled", "weight-scaled", where=normalising)
def _(spot: Spot) -> None:
    spot.module.weight *= spot.rng.choice([0.5, 2.0, 1.001])


@fault("weight-permuted-out", "weight-permuted", where=weighted)
def _(spot: Spot) -> None:
    weight = spot.module.weight
    weight.copy_(weight[spot.shuffled(weight.shape[0])])


@fault("weight-permuted-in", "weight-permuted", where=lambda p: weighted(p) and p.module.weight.shape[1] > 1)
def _(spot: Spot) -> None:
    weight = spot.module.weight
    weight.copy_(weight[:, spot.shuffled(weight.shape[1])])


def _has_window(place: Place) -> bool:
    return conv(place) and place.module.kernel_size[0] > 1


@fault("kernel-flipped", "weight-permuted", where=_has_window)
def _(spot: Spot) -> None:
    spot.module.weight.copy_(spot.module.weight.flip(2, 3))


@fault("kernel-transposed", "weight-transposed", where=_has_window)
def _(spot: Spot) -> None:
    spot.module.weight.copy_(spot.module.weight.mT.clone())


def _square(place: Place) -> bool:
    return linear(place) and place.module.in_features == place.module.out_features


@fault("linear-transposed", "weight-transposed", where=_square)
def _(spot: Spot) -> None:
    spot.module.weight.copy_(spot.module.weight.T.clone())


@fault("channels-transposed", "weight-transposed", where=lambda p: conv(p) and _swappable(p.module.weight))
def _(spot: Spot) -> None:
    spot.module.weight.copy_(spot.module.weight.transpose(0, 1).clone())


def _swappable(weight: Tensor) -> bool:
    return weight.shape[0] == weight.shape[1]


def _twins(place: Place, places: dict[str, Place]) -> list[str]:
    """Other layers with a weight of the same shape."""
    return [
        other.name
        for other in places.values()
        if other.name != place.name
        and type(other.module) is type(place.module)
        and other.module.weight.shape == place.module.weight.shape
        and other.name not in place.reads | place.read_by
    ]


def _has_twin(place: Place) -> bool:
    from tests.mutants.planting import places

    return weighted(place) and bool(_twins(place, places(place.network, 0)))


@fault("weight-swapped", where=_has_twin)
def _(spot: Spot) -> None:
    other = spot.rng.choice(_twins(spot.place, spot.places))
    mine, theirs = spot.module.weight, spot.model.get_submodule(other).weight
    assert isinstance(theirs, Tensor)
    kept = mine.clone()
    mine.copy_(theirs)
    theirs.copy_(kept)
    spot.blame_also(other)


for _dtype in (torch.bfloat16, torch.float16):

    @fault(f"weight-as-{str(_dtype).removeprefix('torch.')}", "weight-rounded", where=weighted)
    def _(spot: Spot, dtype: torch.dtype = _dtype) -> None:
        spot.module.weight.copy_(spot.module.weight.to(dtype))


@fault("weight-not-loaded", where=weighted)
def _(spot: Spot) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(spot.rng.getrandbits(62))
        bias = spot.module.bias
        kept = None if bias is None else bias.clone()
        spot.module.reset_parameters()
        if kept is not None:
            bias.copy_(kept)


@fault("gamma-not-loaded", "weight-not-loaded", where=normalising)
def _(spot: Spot) -> None:
    spot.module.weight.fill_(1)


@fault("beta-not-loaded", "bias-not-loaded", where=normalising)
def _(spot: Spot) -> None:
    spot.module.bias.fill_(0)


@fault("affine-swapped", where=normalising)
def _(spot: Spot) -> None:
    weight, bias = spot.module.weight, spot.module.bias
    kept = weight.clone()
    weight.copy_(bias)
    bias.copy_(kept)


@fault("bias-not-loaded", where=biased)
def _(spot: Spot) -> None:
    spot.module.bias.fill_(0)


# A dozen numbers freshly drawn look like any other wrong ones.
@fault("bias-as-constructed", "bias-not-loaded", "bias-perturbed", where=biased)
def _(spot: Spot) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(spot.rng.getrandbits(62))
        kept = spot.module.weight.clone()
        spot.module.reset_parameters()
        spot.module.weight.copy_(kept)


@fault("bias-perturbed", where=biased)
def _(spot: Spot) -> None:
    bias = spot.module.bias
    bias += 1e-4 * bias.abs().mean() * spot.noise(bias)


@fault("bias-element-wrong", "bias-perturbed", where=biased)
def _(spot: Spot) -> None:
    bias = spot.module.bias
    bias[spot.rng.randrange(bias.numel())] += 0.1


@fault("beta-perturbed", "bias-perturbed", where=normalising)
def _(spot: Spot) -> None:
    bias = spot.module.bias
    bias += 1e-3 * spot.noise(bias)


@fault("bias-missing", where=biased)
def _(spot: Spot) -> None:
    spot.module.bias = None


@fault("bias-extra", where=lambda p: weighted(p) and p.module.bias is None)
def _(spot: Spot) -> None:
    channels = spot.module.weight.shape[0]
    spot.module.bias = nn.Parameter(0.3 * spot.noise(torch.empty(channels)))


@fault("running-mean-shifted", "running-mean", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.running_mean += spot.rng.choice([1e-3, 0.1])


@fault("running-mean-not-loaded", "running-mean", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.running_mean.fill_(0)


@fault("running-var-scaled", "running-var", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.running_var *= spot.rng.choice([0.5, 1.01, 8 / 7])


@fault("running-var-shifted", "running-var", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.running_var += 1e-3


@fault("running-var-not-loaded", "running-var", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.running_var.fill_(1)


# Both tensors are wrong; either is right to name.
@fault("running-statistics-not-loaded", "running-mean", "running-var", where=keeps_statistics)
def _(spot: Spot) -> None:
    spot.module.reset_running_stats()
