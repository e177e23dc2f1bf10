"""The same function written in another form: operators, order of execution, names and nesting."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.networks import (
    Add,
    Attention,
    MatMul,
    MeanToken,
    Multiply,
    Normalise,
    Perceptron,
    PreActivated,
    Residual,
    Scale,
    Tokens,
)
from tests.mutants.variants import Variant, benign, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _unfolded_max(pool: Any, x: Tensor) -> Tensor:
    """A max pool from windows; sizes that the windows leave over are cut, as without ceil_mode."""
    p, k, s = pool.padding, pool.kernel_size, pool.stride
    x = F.pad(x, (p, p, p, p), value=float("-inf"))
    return x.unfold(2, k, s).unfold(3, k, s).amax((-2, -1))


def _batch_norm(norm: Any, x: Tensor) -> Tensor:
    if norm.training:
        norm.num_batches_tracked.add_(1)
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )


def _layer_norm(norm: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _convolution(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _bias_apart(conv: Any, x: Tensor) -> Tensor:
    out = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return out if conv.bias is None else out + conv.bias.view(1, -1, 1, 1)


def _padded_apart(conv: Any, x: Tensor) -> Tensor:
    p, q = conv.padding
    return F.conv2d(
        F.pad(x, (q, q, p, p)), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups
    )


REWRITTEN: Mapping[str, tuple[type[nn.Module], Callable[..., Tensor]]] = {
    "relu-functional": (nn.ReLU, lambda _, x: F.relu(x)),
    "relu-torch": (nn.ReLU, lambda _, x: torch.relu(x)),
    "relu-method": (nn.ReLU, lambda _, x: x.relu()),
    "relu-clamp": (nn.ReLU, lambda _, x: x.clamp(min=0)),
    "relu-clamp-min": (nn.ReLU, lambda _, x: torch.clamp_min(x, 0)),
    "relu-maximum": (nn.ReLU, lambda _, x: torch.maximum(x, torch.zeros_like(x))),
    "relu-contiguous": (nn.ReLU, lambda _, x: F.relu(x).contiguous()),
    "gelu-functional": (nn.GELU, lambda _, x: F.gelu(x)),
    "gelu-erf": (nn.GELU, lambda _, x: 0.5 * x * (1 + torch.erf(x / 2**0.5))),
    "sigmoid-functional": (nn.Sigmoid, lambda _, x: torch.sigmoid(x)),
    "softmax-method": (nn.Softmax, lambda m, x: x.softmax(m.dim)),
    "add-swapped": (Add, lambda _, a, b: b + a),
    "add-torch": (Add, lambda _, a, b: torch.add(a, b)),
    "add-alpha": (Add, lambda _, a, b: torch.add(a, b, alpha=1)),
    "add-stacked": (Add, lambda _, a, b: torch.stack([a, b]).sum(0)),
    "add-in-place": (Add, lambda _, a, b: a.clone().add_(b)),
    "multiply-swapped": (Multiply, lambda _, a, b: b * a),
    "scale-method": (Scale, lambda m, x: x.mul(m.factor)),
    "scale-divided": (Scale, lambda m, x: x / (1 / m.factor)),
    "matmul-torch": (MatMul, lambda m, a, b: torch.matmul(a, b.mT if m.transposed else b)),
    "matmul-bmm": (MatMul, lambda m, a, b: torch.bmm(a, b.transpose(-1, -2) if m.transposed else b)),
    "matmul-einsum": (
        MatMul,
        lambda m, a, b: torch.einsum("nik,njk->nij" if m.transposed else "nik,nkj->nij", a, b),
    ),
    "conv-functional": (nn.Conv2d, _convolution),
    "conv-bias-apart": (nn.Conv2d, _bias_apart),
    "conv-padded-apart": (nn.Conv2d, _padded_apart),
    "linear-functional": (nn.Linear, lambda m, x: F.linear(x, m.weight, m.bias)),
    "linear-matmul": (nn.Linear, lambda m, x: x @ m.weight.T + m.bias),
    "linear-addmm": (
        nn.Linear,
        lambda m, x: torch.addmm(m.bias, x, m.weight.t()) if x.dim() == 2 else F.linear(x, m.weight, m.bias),
    ),
    "batchnorm-functional": (nn.BatchNorm2d, _batch_norm),
    "layernorm-functional": (nn.LayerNorm, _layer_norm),
    "layernorm-by-hand": (
        nn.LayerNorm,
        lambda m, x: (x - x.mean(-1, keepdim=True))
        / (x.var(-1, unbiased=False, keepdim=True) + m.eps).sqrt()
        * m.weight
        + m.bias,
    ),
    "maxpool-functional": (
        nn.MaxPool2d,
        lambda m, x: F.max_pool2d(x, m.kernel_size, m.stride, m.padding),
    ),
    "maxpool-pairs": (
        nn.MaxPool2d,
        lambda m, x: F.max_pool2d(x, (m.kernel_size,) * 2, (m.stride,) * 2, (m.padding,) * 2),
    ),
    "maxpool-unfolded": (nn.MaxPool2d, _unfolded_max),
    "avgpool-functional": (nn.AvgPool2d, lambda m, x: F.avg_pool2d(x, m.kernel_size, m.stride, m.padding)),
    "adaptive-functional": (nn.AdaptiveAvgPool2d, lambda m, x: F.adaptive_avg_pool2d(x, m.output_size)),
    "adaptive-mean": (
        nn.AdaptiveAvgPool2d,
        lambda m, x: x.mean((2, 3), keepdim=True) if m.output_size == 1 else F.adaptive_avg_pool2d(x, 2),
    ),
    "adaptive-fixed-window": (
        nn.AdaptiveAvgPool2d,
        lambda m, x: F.avg_pool2d(x, x.shape[-1] // m.output_size)
        if x.shape[-1] % m.output_size == 0
        else F.adaptive_avg_pool2d(x, m.output_size),
    ),
    "mean-token-sum": (MeanToken, lambda _, x: x.sum(1) / x.shape[1]),
    "flatten-torch": (nn.Flatten, lambda _, x: torch.flatten(x, 1)),
    "flatten-view": (nn.Flatten, lambda _, x: x.contiguous().view(x.shape[0], -1)),
    "flatten-reshape": (nn.Flatten, lambda _, x: x.reshape(len(x), -1)),
    "tokens-reshape": (Tokens, lambda _, x: x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])),
    "tokens-transpose": (Tokens, lambda _, x: x.reshape(len(x), x.shape[1], -1).mT),
    "normalise-torch": (Normalise, lambda m, x: torch.div(torch.sub(x, m.mean), m.std)),
    "dropout-functional": (nn.Dropout, lambda m, x: F.dropout(x, m.p, training=m.training)),
}  # fmt: skip

for _name, (_kind, _forward) in REWRITTEN.items():

    @benign(_name)
    def _(made: Variant, kind: Any = _kind, forward: Callable[..., Tensor] = _forward) -> None:
        rewrite(made, kind, forward)


# --- the same modules, arranged otherwise


@benign("relu-in-place")
def _(made: Variant) -> None:
    for parent in made.candidate.modules():
        if not isinstance(parent, PreActivated):  # what that one activates is read a second time
            for module in parent.children():
                if isinstance(module, nn.ReLU):
                    module.inplace = True


@benign("relu-shared")
def _(made: Variant) -> None:
    for module in made.candidate.modules():
        if isinstance(module, Residual) and "relu1" in module.chain:
            module.relu1 = module.last


def _shortcut_first(block: Any, x: Tensor) -> Tensor:
    aside = block.shortcut(x)
    out: Tensor = block.last(block.add(block.body(x), aside))
    return out


@benign("shortcut-first")
def _(made: Variant) -> None:
    for module in list(made.candidate.modules()):
        if isinstance(module, Residual):
            kind: Any = type(module)
            module.__class__ = type(kind.__name__, (kind,), {"forward": _shortcut_first})


def _values_first(block: Any, x: Tensor) -> Tensor:
    y = block.norm(x)
    value, key, query = block.value(y), block.key(y), block.query(y)
    weights = block.softmax(block.scale(block.scores(query, key)))
    out: Tensor = block.add(x, block.project(block.mix(weights, value)))
    return out


@benign("values-first")
def _(made: Variant) -> None:
    for module in list(made.candidate.modules()):
        if isinstance(module, Attention):
            module.__class__ = type("Attention", (Attention,), {"forward": _values_first})


@benign("renamed")
def _(made: Variant) -> None:
    if type(made.candidate) is nn.Sequential:
        children = enumerate(made.candidate.children())
        made.candidate = nn.Sequential(OrderedDict((f"stage{k}", child) for k, child in children)).train(
            made.candidate.training
        )


@benign("nested")
def _(made: Variant) -> None:
    children = list(made.candidate.children())
    if len(children) < 2:  # wrapped before
        return
    cut = made.rng.randrange(1, len(children))
    made.candidate = nn.Sequential(nn.Sequential(*children[:cut]), nn.Sequential(*children[cut:])).train(
        made.candidate.training
    )


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


@benign("wrapped")
def _(made: Variant) -> None:
    made.candidate = _Wrapped(made.candidate).train(made.candidate.training)


@benign("parameters-reordered")
def _(made: Variant) -> None:
    for module in made.candidate.modules():
        for table in (module._parameters, module._buffers):
            items = list(table.items())
            made.rng.shuffle(items)
            table.clear()
            table.update(items)
        if not isinstance(module, nn.Sequential):  # there the order is the program
            children = list(module._modules.items())
            made.rng.shuffle(children)
            module._modules.clear()
            module._modules.update(children)


def _insert(made: Variant, make: Callable[[], nn.Module]) -> None:
    """Put a module behind a random child of a random sequence."""
    sequences: list[Any] = [m for m in made.candidate.modules() if isinstance(m, nn.Sequential)]
    sequence = made.rng.choice(sequences)
    children = list(sequence.named_children())
    at = made.rng.randrange(len(children) + 1)
    children.insert(at, ("inserted", make().train(False)))
    for name, _ in list(sequence.named_children()):
        del sequence._modules[name]
    for name, child in children:
        sequence._modules[name] = child


@benign("identity-inserted")
def _(made: Variant) -> None:
    if "inserted" not in str(made.candidate):
        _insert(made, nn.Identity)


@benign("dropout-inserted")
def _(made: Variant) -> None:
    if "inserted" not in str(made.candidate):
        _insert(made, nn.Dropout)


class _Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


@benign("contiguous-inserted")
def _(made: Variant) -> None:
    if "inserted" not in str(made.candidate):
        _insert(made, _Contiguous)


@benign("requires-no-grad")
def _(made: Variant) -> None:
    made.candidate.requires_grad_(False)


def _chain_functional(block: Any, x: Tensor) -> Tensor:
    y = F.layer_norm(x, block.norm.normalized_shape, block.norm.weight, block.norm.bias, block.norm.eps)
    y = F.linear(F.gelu(F.linear(y, block.fc1.weight, block.fc1.bias)), block.fc2.weight, block.fc2.bias)
    return x + y


@benign("perceptron-functional")
def _(made: Variant) -> None:
    for module in list(made.candidate.modules()):
        if isinstance(module, Perceptron):
            module.__class__ = type("Perceptron", (Perceptron,), {"forward": _chain_functional})


@benign("attention-fused")
def _(made: Variant) -> None:
    for module in list(made.candidate.modules()):
        if isinstance(module, Attention):
            module.__class__ = type("Attention", (Attention,), {"forward": _fused})


def _fused(block: Any, x: Tensor) -> Tensor:
    y = block.norm(x)
    mixed = F.scaled_dot_product_attention(block.query(y), block.key(y), block.value(y))
    out: Tensor = block.add(x, block.project(mixed))
    return out


def applies(name: str, baseline: nn.Module) -> bool:
    """Whether there is anything in the baseline for this rewrite to act on."""
    kind = REWRITTEN.get(name)
    return kind is None or any(type(module) is kind[0] for module in baseline.modules())
