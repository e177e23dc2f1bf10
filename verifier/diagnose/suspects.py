"""What may be wrong with a site, each as a change that makes its call the baseline's in one respect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.diagnose import codes
from verifier.diagnose.edits.schemas import argument_name
from verifier.graph.operators import IRRELEVANT, canonical, operator_name, readable, signature_of
from verifier.recognise.axes import as_text
from verifier.recognise.values import relate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from verifier.graph import KeptCall


@dataclass(frozen=True)
class Suspect:
    """A difference between two calls: its code, what it says, and how to undo it in the candidate's call."""

    code: str
    summary: str
    remedy: str
    apply: Callable[[KeptCall], KeptCall]
    evidence: tuple[str, ...] = ()


def suspects(candidate: KeptCall, baseline: KeptCall, others: Mapping[str, Tensor]) -> list[Suspect]:
    """The differences between two calls of one site, the most telling first.

    Args:
        candidate: The candidate's call.
        baseline: The baseline's.
        others: The baseline's parameters and buffers by name, to recognise one that is in another's place.
    """
    op, baseline_op = operator_name(candidate.function), operator_name(baseline.function)
    found = _tensors(candidate, baseline, others)
    if op != baseline_op:
        return [_operator(op, baseline_op, baseline), *found]
    variance = _variance(candidate) if op == "batch_norm" else []
    return [*variance, *_attributes(op, candidate, baseline), *found]


def _variance(candidate: KeptCall) -> list[Suspect]:
    """A batch norm on a variance of its own that is divided by n - 1, where the framework's divides by n."""
    variance, x = _tensor(candidate, "running_var"), _tensor(candidate, "input")
    if variance is None or x is None or "running_var" in candidate.state or x.numel() <= x.shape[1]:
        return []
    n = x.numel() // x.shape[1]
    return [
        Suspect(
            "batchnorm-variance",
            "it normalises with the unbiased variance of the batch, the baseline with the biased one",
            "divide the variance by n, not n - 1",
            lambda call: call.with_argument("running_var", variance * ((n - 1) / n)),
        )
    ]


def _operator(op: str, baseline_op: str, baseline: KeptCall) -> Suspect:
    def apply(call: KeptCall) -> KeptCall:
        made = baseline.with_operands(call.operands)
        for name in call.state & made.state:
            made = made.with_argument(name, call.arguments[name])
        return made

    return Suspect(
        codes.of_operator(op, baseline_op),
        f"it is {op}, the baseline {baseline_op}",
        f"use {baseline_op}",
        apply,
    )


def _attributes(op: str, candidate: KeptCall, baseline: KeptCall) -> list[Suspect]:
    b, c = settings(baseline), settings(candidate)
    names = [
        name
        for name in dict.fromkeys((*b, *c))
        if canonical(c.get(name, _UNSET)) != canonical(b.get(name, _UNSET))
    ]
    # A flag says more than a number, and a number that changes the shape more than one that does not.
    names.sort(key=lambda name: (name not in {"training", "train"}, name not in {"stride", "padding"}))
    return [
        _attribute(op, name, argument_name(candidate, name), c.get(name, _UNSET), b.get(name, _UNSET))
        for name in names
    ]


_UNSET = "its default"


def _attribute(op: str, name: str, called: str, found: Any, expected: Any) -> Suspect:
    def apply(call: KeptCall) -> KeptCall:
        return call.without_argument(name) if expected is _UNSET else call.with_argument(name, expected)

    return Suspect(
        codes.of_attribute(op, called),
        f"{called} is {_shown(found)}, the baseline's {_shown(expected)}",
        f"set {called} to {_shown(expected)}",
        apply,
    )


def _shown(value: Any) -> str:
    return str(canonical(value))


def settings(call: KeptCall, even: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a call that hold no tensor, by name, defaults filled in.

    Those that do not change the result are left out, but for the ones in `even`.
    """
    signature = signature_of(call.function)
    found: dict[str, Any] = {}
    if signature is not None:
        found = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.default is not parameter.empty
        }
    found.update(call.arguments)
    return {
        name: value
        for name, value in found.items()
        if name not in (IRRELEVANT | {"_stacklevel"}) - set(even) and not _holds_tensors(value)
        and not (value is None and name in _TENSORS)
    }  # fmt: skip


_TENSORS = frozenset({"bias", "weight", "running_mean", "running_var"})


def _holds_tensors(value: Any) -> bool:
    return readable(value) == "tensor" or (
        isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value)
    )


def _tensors(candidate: KeptCall, baseline: KeptCall, others: Mapping[str, Tensor]) -> list[Suspect]:
    roles = [
        name
        for name in dict.fromkeys((*baseline.arguments, *candidate.arguments))
        if name in candidate.state | baseline.state
    ]
    found = []
    changed: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    for role in roles:
        b, c = _tensor(baseline, role), _tensor(candidate, role)
        if b is None and c is None:
            continue
        if b is not None and c is not None and c.numel() == b.numel():
            b = b.reshape(c.shape)  # a linear layer's weights in a 1 x 1 convolution
        changed[role] = b, c
        suspect = _tensor_suspect(role, b, c, others)
        if suspect is not None:
            found.append(suspect)
    crossed = _crossed(changed)
    return found if crossed is None else [crossed, *found]


def _tensor(call: KeptCall, role: str) -> Tensor | None:
    value = call.arguments.get(role)
    return value if isinstance(value, Tensor) else None


def _tensor_suspect(
    role: str, baseline: Tensor | None, candidate: Tensor | None, others: Mapping[str, Tensor]
) -> Suspect | None:
    def apply(call: KeptCall) -> KeptCall:
        return call.with_argument(role, baseline, is_state=baseline is not None)

    if candidate is None:
        return Suspect(f"{role}-missing", f"it has no {role}, the baseline has one", f"add the {role}", apply)
    if baseline is None:
        return Suspect(
            f"{role}-extra", f"it has a {role}, the baseline has none", f"remove the {role}", apply
        )
    alike = {name: tensor for name, tensor in others.items() if tensor.shape == candidate.shape}
    single = _is_single(candidate) and _is_single(
        baseline
    )  # as the masters were: then their rounding is known
    relation = (
        relate(candidate.float(), baseline.float(), alike) if single else relate(candidate, baseline, alike)
    )
    if relation is None:
        return None
    remedy = f"load the baseline's {role}"
    if candidate.numel() != baseline.numel():  # it would not fit
        remedy = f"build the layer with a {role} of shape {as_text(tuple(baseline.shape))}, and {remedy}"
    return Suspect(
        codes.of_tensor(role, relation.kind),
        f"its {role.replace('_', ' ')} {relation.summary}",
        remedy,
        apply,
        relation.evidence,
    )


def _is_single(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float64 and tensor.float().double().equal(tensor)


def _crossed(changed: Mapping[str, tuple[Tensor | None, Tensor | None]]) -> Suspect | None:
    """Weight and bias in each other's place."""
    weight, bias = changed.get("weight"), changed.get("bias")
    if weight is None or bias is None or None in weight or None in bias:
        return None
    (b_weight, c_weight), (b_bias, c_bias) = weight, bias
    assert c_weight is not None and b_weight is not None  # noqa: S101, PT018 - seen above
    assert c_bias is not None and b_bias is not None  # noqa: S101, PT018
    if c_weight.shape != b_bias.shape or c_weight.equal(b_weight):
        return None
    if not (c_weight.equal(b_bias) and c_bias.equal(b_weight)):
        return None
    return Suspect(
        "affine-swapped",
        "its weight is the baseline's bias, and its bias the weight",
        "exchange weight and bias",
        lambda call: call.with_argument("weight", b_weight).with_argument("bias", b_bias),
    )
