"""The stable codes causes go by, and what to say of each.

A code is a family and what is wrong with it: a hyperparameter (`conv-stride`, `batchnorm-eps`), an operator
(`relu-missing`, `softmax-extra`, `activation-different`), a tensor (`weight-scaled`, `running-mean`) or an input
(`input-scale`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.graph.operators import DROPOUTS, RESHAPES, converts, kind

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGED_UNSEEN = "changed-after-last-site"

_MOVES = frozenset({"permute", "transpose", "movedim", "moveaxis", "t", "mT", "swapdims", "flip"})
_FAMILIES = {
    "add": "residual",
    "batch_norm": "batchnorm",
    "group_norm": "groupnorm",
    "instance_norm": "instancenorm",
    "layer_norm": "layernorm",
    "rms_norm": "rmsnorm",
    "multi_head_attention_forward": "attention",
    "scaled_dot_product_attention": "attention",
}

JOINS = frozenset({"add", "mul", "cat", "sub", "matmul"})


def family(op: str) -> str:
    """The word an operator's causes begin with: `conv` for conv2d, `maxpool` for max_pool2d."""
    plain = op.rstrip("123d") if op.endswith(("1d", "2d", "3d")) else op
    if plain in _FAMILIES:
        return _FAMILIES[plain]
    if plain == "conv_transpose":
        return "conv-transpose"
    return plain.strip("_").replace("_pool", "pool").replace("_", "-")


def of_operator(op: str, baseline_op: str) -> str:
    """The code for one operator in another's place."""
    word = kind(op)
    return f"{word}-different" if word == kind(baseline_op) and word in _KINDS else "operator-different"


_KINDS = frozenset({"activation", "norm", "pooling"})


def of_attribute(op: str, name: str) -> str:
    """The code for a hyperparameter."""
    if op in DROPOUTS | {"bernoulli"} and name in {"training", "train"}:
        return "dropout-active"
    word = op if op == "add" else family(op)  # what is written as a setting is a number, no branch
    return f"{word}-{name.replace('_', '-')}"


def of_tensor(role: str, kind: str) -> str:
    """The code for a parameter or buffer whose relation to the baseline's is `kind`."""
    if role in {"running_mean", "running_var"}:
        return role.replace("_", "-")
    plain = role.replace("_", "-")
    return f"{plain}-{'perturbed' if kind in {'partial', 'shifted', 'shape'} else kind}"


def of_region(missing: Sequence[str], extra: Sequence[str], reader: str) -> str:
    """The code for operators the candidate lacks or has too many, in order of execution, above `reader`."""
    if not extra:
        if len(missing) == 1:
            return f"{family(missing[0])}-missing"
        if missing[-1] in JOINS:  # with it the branch it joins is gone
            return f"{family(missing[-1])}-missing"
    if not missing and extra:
        if any(op in DROPOUTS | {"bernoulli"} for op in extra):
            return "dropout-active"
        if len(extra) == 1:
            return _of_extra(extra[0], reader)
        if all(map(converts, extra)):
            return "internal-cast"
        if set(extra) <= _MOVES | RESHAPES | {"contiguous"}:
            return "flatten-order"
    if len(missing) == len(extra) == 1:
        return of_operator(extra[0], missing[0])
    if sorted(missing) == sorted(extra):
        return "order-different"
    if missing and extra and reader == "add":
        return "shortcut-different"
    return "region-different"


def _of_extra(op: str, reader: str) -> str:
    if converts(op):
        return "internal-cast"
    if op in _MOVES:
        return "flatten-order" if reader in RESHAPES else f"{family(op)}-extra"
    if op in {"mul", "div"}:
        return "residual-scaled" if reader == "add" else "scale-extra"
    return f"{family(op)}-extra"
