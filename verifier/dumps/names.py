"""What names of dumped tensors tell: an order, families, and which operators they resemble."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier.graph import Site

# What frameworks call one operator, as torch's words for it.
_SAME = {
    "activation": (),
    "act": (),
    "attn": ("attention",),
    "avg": ("avg",),
    "bn": ("batch", "norm"),
    "batchnorm": ("batch", "norm"),
    "batchnormalization": ("batch", "norm"),
    "convolution": ("conv",),
    "dense": ("linear",),
    "embed": ("embedding",),
    "fc": ("linear",),
    "gn": ("group", "norm"),
    "layernorm": ("layer", "norm"),
    "layernormalization": ("layer", "norm"),
    "ln": ("layer", "norm"),
    "normalization": ("norm",),
    "pooling": ("pool",),
    "proj": ("linear",),
    "projection": ("linear",),
    "swish": ("silu",),
}
_EMPTY = frozenset(
    {"activations", "call", "intermediates", "output", "outputs", "out", "layer", "layers", "module"}
)
_LEAVES = frozenset(
    {"kernel", "weight", "bias", "scale", "gamma", "beta", "embedding", "running_mean", "running_var"}
    | {"moving_mean", "moving_variance", "num_batches_tracked", "recurrent_kernel"}
)
_COLLECTIONS = frozenset(
    {"params", "param", "parameters", "batch_stats", "state_dict", "variables", "weights"}
)
_INPUTS = frozenset({"input", "inputs", "x", "image", "images", "tokens", "input_ids", "ids"})
_OUTPUTS = frozenset(
    {"output", "outputs", "out", "logits", "probs", "probabilities", "prediction", "predictions"}
)
_PARTS = re.compile(r"[/.\\:]+|(?<=[a-z0-9])__(?=[a-z0-9])")  # names of files cannot hold `/`


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key by which names are sorted as people count: `conv_2` before `conv_10`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    )


def family(name: str) -> str:
    """The name without its numbers: `Conv_0` and `Conv_1` are of one family."""
    return re.sub(r"\d+", "#", name)


def words(name: str) -> frozenset[str]:
    """The words of a name, without numbers, in torch's words for operators."""
    found: set[str] = set()
    for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        word = part.lower()
        found.update(_SAME.get(word, (word,)))
    return frozenset(found - _EMPTY)


def likeness(name: str, site: Site) -> float:
    """How much a dumped tensor's name resembles a site's name and operator, from 0 to 1."""
    own = words(name)
    if not own:
        return 0.0
    last = ".".join(site.name.split(".")[-2:])
    known = words(site.op) | words(last)
    alike = sum(any(_alike(word, other) for other in known) for word in own)
    return alike / len(own)


def _alike(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) > 2 and long.startswith(short))


def parts(name: str) -> tuple[str, ...]:
    """The parts of a path, in lower case."""
    return tuple(part for part in _PARTS.split(name.lower()) if part)


def leaf(name: str) -> str:
    """The last part of a path: `kernel`."""
    return parts(name)[-1] if parts(name) else ""


def owner(name: str) -> tuple[str, ...]:
    """The path of the module that a parameter belongs to, without the collection it is kept in."""
    return tuple(part for part in parts(name)[:-1] if part not in _COLLECTIONS)


def of_parameter(name: str) -> bool:
    """Whether a name is a parameter's or a statistic's."""
    return leaf(name) in _LEAVES or not _COLLECTIONS.isdisjoint(parts(name))


def of_input(name: str) -> bool:
    """Whether a name says that this went in."""
    return re.sub(r"[\d_]+$", "", leaf(name)) in _INPUTS or leaf(name) in _INPUTS


def of_output(name: str) -> bool:
    """Whether a name says that this came out."""
    found = parts(name)
    return re.sub(r"[\d_]+$", "", leaf(name)) in _OUTPUTS or found in (
        ("__call__",),
        ("intermediates", "__call__"),
    )
