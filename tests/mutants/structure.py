"""Faults in what a model computes: operators missing, added, exchanged, reordered or fed with something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.networks import Add, Attention, Basic, MeanToken, Multiply, Residual, Scale
from tests.mutants.planting import Place, Spot, entry, fault, isa, normalises

if TYPE_CHECKING:
    from collections.abc import Callable

relu = isa(nn.ReLU)
batch_norm = isa(nn.BatchNorm2d)
average = isa(nn.AdaptiveAvgPool2d)

ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[[], nn.Module]]] = {
    "relu-as-relu6": (nn.ReLU, nn.ReLU6),
    "relu-as-leaky-relu": (nn.ReLU, nn.LeakyReLU),
    "relu-as-gelu": (nn.ReLU, nn.GELU),
    "relu-as-silu": (nn.ReLU, nn.SiLU),
    "relu-as-tanh": (nn.ReLU, nn.Tanh),
    "relu-as-elu": (nn.ReLU, nn.ELU),
    "gelu-as-relu": (nn.GELU, nn.ReLU),
    "gelu-as-silu": (nn.GELU, nn.SiLU),
    "sigmoid-as-hardsigmoid": (nn.Sigmoid, nn.Hardsigmoid),
}

for _kind, (_old, _new) in ACTIVATIONS.items():

    @fault(_kind, "activation-different", where=isa(_old))
    def _(spot: Spot, new: Callable[[], nn.Module] = _new) -> None:
        spot.replace(new())


MISSING: dict[str, type[nn.Module]] = {
    "relu-missing": nn.ReLU,
    "gelu-missing": nn.GELU,
    "sigmoid-missing": nn.Sigmoid,
    "batchnorm-missing": nn.BatchNorm2d,
    "layernorm-missing": nn.LayerNorm,
    "mul-missing": Scale,
}

for _kind, _old in MISSING.items():

    @fault(_kind, where=isa(_old))
    def _(spot: Spot) -> None:
        spot.replace(nn.Identity())


def _signed(place: Place) -> bool:
    """A place whose output goes to no ReLU and comes from none."""
    return not isinstance(
        place.module, nn.ReLU | nn.MaxPool2d | nn.AdaptiveAvgPool2d | nn.Flatten
    ) and not any(name.rpartition(".")[2].startswith(("relu", "last")) for name in place.read_by)


@fault(
    "relu-extra", where=lambda p: isinstance(p.module, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and _signed(p)
)
def _(spot: Spot) -> None:
    spot.after(F.relu)


# Here and below: a branch that nothing reads is missing as a whole, so its first site is as right to name as
# the join.
@fault("gate-missing", "mul-missing", where=isa(Multiply))
def _(spot: Spot) -> None:
    spot.run(lambda _, a, b: a)
    spot.blame_or(*(name for name in spot.places if name.startswith(spot.place.prefix)))


@fault("gate-added", "operator-different", where=isa(Multiply))
def _(spot: Spot) -> None:
    spot.run(lambda _, a, b: a + b)


@fault("max-as-average-pool", "pooling-different", where=isa(nn.MaxPool2d))
def _(spot: Spot) -> None:
    pool = spot.module
    spot.replace(nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding))


@fault("average-as-max-pool", "pooling-different", where=isa(nn.AvgPool2d, nn.AdaptiveAvgPool2d))
def _(spot: Spot) -> None:
    pool = spot.module
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        spot.replace(nn.AdaptiveMaxPool2d(pool.output_size))
    else:
        spot.replace(nn.MaxPool2d(pool.kernel_size, pool.stride, pool.padding))


@fault(
    "adaptive-as-fixed-window",
    "pooling-different",
    where=lambda p: average(p) and p.output[-1] == 1 and p.inputs[0][-1] > 1,
)
def _(spot: Spot) -> None:
    window = spot.place.inputs[0][-1] - 1
    spot.replace(nn.AvgPool2d(window))


# The mean is a pooling by meaning, an operator like any other by name.
@fault("mean-as-first-token", "pooling-different", "operator-different", where=isa(MeanToken))
def _(spot: Spot) -> None:
    spot.run(lambda _, x: x[:, 0])


@fault("batch-as-group-norm", "norm-different", where=batch_norm)
def _(spot: Spot) -> None:
    old = spot.module
    new = nn.GroupNorm(2, old.num_features, eps=old.eps)
    new.weight, new.bias = old.weight, old.bias
    spot.replace(new)


@fault("batch-as-instance-norm", "norm-different", where=batch_norm)
def _(spot: Spot) -> None:
    old = spot.module
    new = nn.InstanceNorm2d(old.num_features, eps=old.eps, affine=True)
    new.weight, new.bias = old.weight, old.bias
    spot.replace(new)


@fault("layer-as-rms-norm", "norm-different", where=isa(nn.LayerNorm))
def _(spot: Spot) -> None:
    old = spot.module
    new = nn.RMSNorm(old.normalized_shape, eps=old.eps)
    new.weight = old.weight
    spot.replace(new)


@fault("residual-missing", where=isa(Add))
def _(spot: Spot) -> None:
    shortcut = {name for name in spot.places if name.startswith(f"{spot.place.prefix}shortcut.")}
    if isinstance(spot.parent, Attention):  # the shortcut comes first there
        spot.run(lambda _, a, b: b)
    else:
        spot.run(lambda _, a, b: a)
    spot.blame_or(*shortcut)


@fault("residual-scaled", where=isa(Add))
def _(spot: Spot) -> None:
    factor = spot.rng.choice([0.5, 2.0, 2**-0.5, 0.999])
    spot.run(lambda _, a, b: a + factor * b)


@fault("residual-subtracted", "operator-different", where=isa(Add))
def _(spot: Spot) -> None:
    spot.run(lambda _, a, b: a - b)


def _with_identity(place: Place) -> bool:
    return isinstance(place.module, Add) and isinstance(getattr(place.parent, "shortcut", None), nn.Identity)


@fault(
    "residual-miswired", "wiring-different", where=lambda p: _with_identity(p) and isinstance(p.parent, Basic)
)
def _(spot: Spot) -> None:
    source = spot.rng.randrange(4)

    def forward(block: Any, x: Tensor) -> Tensor:
        out, seen = x, []
        for name in block.chain:
            out = block.get_submodule(name)(out)
            seen.append(out)
        result: Tensor = block.last(block.add(out, seen[source]))
        return result

    spot.run(forward, spot.parent)
    # Their readers change, too.
    spot.touched.add(spot.place.prefix + spot.parent.chain[source])


def _scores(place: Place) -> bool:
    return isinstance(place.parent, Attention) and place.name.endswith("scores")


# The dataflow is the same as if the two had each other's tensors, or the product its operands exchanged.
@fault("query-and-key-exchanged", "wiring-different", "weight-swapped", "operand-order", where=_scores)
def _(spot: Spot) -> None:
    spot.run(lambda _, a, b: b @ a.transpose(1, 2))
    spot.blame_or(f"{spot.place.prefix}query", f"{spot.place.prefix}key")


@fault("key-read-twice", "wiring-different", where=_scores)
def _(spot: Spot) -> None:
    spot.run(lambda _, a, b: b @ b.transpose(1, 2))
    spot.blame_or(f"{spot.place.prefix}query")


class _Strided(nn.Module):
    """Option A of the residual networks' paper: no parameters."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def _projects(place: Place) -> bool:
    return isinstance(place.module, nn.Conv2d) and ".shortcut." in place.name


@fault("shortcut-different", where=_projects)
def _(spot: Spot) -> None:
    block = spot.place.name.rpartition(".shortcut.")[0]
    # The shortcut differs as a whole; its first place is as right to name as its last.
    spot.blame_or(*(name for name in spot.places if name.startswith(f"{block}.shortcut.")))
    module: Any = spot.model.get_submodule(block)
    stride = max(place.inputs[0][-1] for place in spot.places.values() if place.name in spot.touched)
    stride //= spot.place.output[-1]
    width = spot.place.output[1] - spot.place.inputs[0][1]
    module.shortcut = _Strided(stride, width)
    spot.blame_or(f"{block}.shortcut")


@fault(
    "relu-before-add",
    "order-different",
    where=lambda p: isinstance(p.module, Add) and isinstance(getattr(p.parent, "last", None), nn.ReLU),
)
def _(spot: Spot) -> None:
    def forward(block: Any, x: Tensor) -> Tensor:
        out: Tensor = block.add(block.last(block.body(x)), block.shortcut(x))
        return out

    spot.run(forward, spot.parent)
    spot.blame_or(f"{spot.place.prefix}last")


@fault(
    "relu-before-norm",
    "order-different",
    where=lambda p: isinstance(p.parent, Residual) and "bn1" in p.parent.chain and p.name.endswith("bn1"),
)
def _(spot: Spot) -> None:
    chain = spot.parent.chain
    spot.parent.chain = (chain[0], chain[2], chain[1], *chain[3:])
    spot.blame_or(f"{spot.place.prefix}relu1")


@fault("flatten-order", where=lambda p: isinstance(p.module, nn.Flatten) and p.inputs[0][-1] > 1)
def _(spot: Spot) -> None:
    spot.before(lambda x: x.permute(0, 2, 3, 1))


def _output(place: Place) -> bool:
    return not place.read_by and isinstance(place.module, nn.Linear)


@fault("softmax-extra", where=_output)
def _(spot: Spot) -> None:
    spot.after(lambda x: F.softmax(x, 1))


@fault("log-softmax-extra", where=_output)
def _(spot: Spot) -> None:
    spot.after(lambda x: F.log_softmax(x, 1))


def _returns_reals(place: Place) -> bool:
    return isinstance(place.module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm | Add | nn.GELU)


# Float64 does not follow a cast to float32, which is rounding; a narrower one is meant.
for _dtype in (torch.bfloat16, torch.float16):

    @fault(f"output-cast-to-{str(_dtype).removeprefix('torch.')}", "internal-cast", where=_returns_reals)
    def _(spot: Spot, dtype: torch.dtype = _dtype) -> None:
        spot.after(lambda x: x.to(dtype).to(x.dtype))


COMPUTED: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Conv2d: lambda m, x: m._conv_forward(
        x, m.weight.bfloat16(), None if m.bias is None else m.bias.bfloat16()
    ),
    nn.Linear: lambda m, x: F.linear(x, m.weight.bfloat16(), m.bias.bfloat16()),
    nn.LayerNorm: lambda m, x: F.layer_norm(
        x, m.normalized_shape, m.weight.bfloat16(), m.bias.bfloat16(), m.eps
    ),
    nn.Softmax: lambda m, x: F.softmax(x, m.dim),
    nn.GELU: lambda m, x: F.gelu(x),
}


@fault("computed-in-bfloat16", "internal-cast", where=isa(*COMPUTED))
def _(spot: Spot) -> None:
    compute = COMPUTED[type(spot.module)]
    spot.run(lambda module, x: compute(module, x.bfloat16()).to(x.dtype))


# The writer is wrong; the reader of what it overwrote is where the difference shows.
@fault(
    "input-overwritten",
    where=lambda p: relu(p) and isinstance(p.parent, Residual) and p.parent.chain[0] == "relu",
)
def _(spot: Spot) -> None:
    spot.module.inplace = True
    spot.blame_or(f"{spot.place.prefix}add")


@fault("input-channel-order", where=entry)
def _(spot: Spot) -> None:
    spot.before(lambda x: x.flip(1))


@fault("input-scale", where=entry)
def _(spot: Spot) -> None:
    spot.before(lambda x: x * 255)


@fault("input-not-normalised", "input-normalisation", where=normalises)
def _(spot: Spot) -> None:
    spot.replace(nn.Identity())


@fault("input-normalised-otherwise", "input-normalisation", where=normalises)
def _(spot: Spot) -> None:
    spot.module.mean.fill_(0.5)
    spot.module.std.fill_(0.5)
