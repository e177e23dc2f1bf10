"""Weights that one operator keeps and that are the rounding of what the other model makes of several."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.operators import operator_name
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.proof.stored import rounds_to
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from verifier.graph import KeptCall, Site
    from verifier.proof.stored import Exact

_ROUNDINGS_MEAN = 2.0  # in the mean of many they are about one


class Linear(NamedTuple):
    """An operator that is linear in a weight that it keeps, as products of matrices, one for each group.

    Attributes:
        call: The operator, with its call.
        roles: The arguments that are its weight and its bias ("" for none).
        multiplied: What is multiplied: groups x rows x inputs, which may be large; None where torch does not give it.
        rows: How a result is laid out as groups x rows x outputs.
        matrix: How the weight is laid out as groups x outputs x inputs.
        back: How such a matrix is laid out as the weight.
    """

    call: KeptCall
    roles: tuple[str, str]
    multiplied: Callable[[], Tensor] | None
    rows: Callable[[Tensor], Tensor]
    matrix: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def multiples(
    linear: Linear, wanted: Tensor, limit: float, others: Iterable[Tensor], *, known: Collection[str] = ()
) -> Exact | None:
    """The weights, by argument, if each row of them is that of another weight times a number of its own.

    As where a norm is folded into the operator before it. What is found so holds on other inputs, too.

    Args:
        linear: As `unrounded` has it, and so are `wanted`, `limit` and `known`.
        others: Weights of the other model that these may be made of.
    """
    call, (role, bias) = linear.call, linear.roles
    if role in known or linear.call.arguments[role].dim() < 2:
        return None
    stored, target = linear.matrix(call.arguments[role]), linear.rows(wanted)
    for other in others:
        if other.shape != call.arguments[role].shape:
            continue
        times = linear.matrix(other.to(stored))
        plain = call.with_argument(role, other.to(stored))
        plain = plain.with_argument(bias, torch.zeros_like(call.arguments[bias])) if bias else plain
        given = linear.rows(plain.run()[0][0])
        factor, shift = _line(given, target, shifted=bool(bias) and bias not in known)
        made = times * factor[:, :, None]
        if not rounds_to(made, stored):
            continue
        found = {role: linear.back(made)}
        if bias and bias not in known:
            kept, size = call.arguments[bias], wanted.square().mean().sqrt()
            exact = shift.reshape(-1)
            size = torch.maximum(torch.maximum(kept.abs(), exact.abs()), size)
            if bool(((exact - kept).abs() > ROUNDINGS * SINGLE_ROUNDOFF * size).any()):
                continue
            found[bias] = exact
        if bias in known:
            shift = call.arguments[bias].reshape(shift.shape)
        # What the operator gives with these: it is linear in them.
        if compared(given * factor[:, None] + shift[:, None], target).within(limit):
            return found
    return None


def _line(x: Tensor, y: Tensor, *, shifted: bool) -> tuple[Tensor, Tensor]:
    """For each group and output the factor and, if `shifted`, the number with which `x` gives `y`, by least squares.

    Both are groups x rows x outputs.
    """
    middle = (x.mean(1), y.mean(1)) if shifted else (torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0]))
    x, y = x - middle[0][:, None], y - middle[1][:, None]
    power = x.square().sum(1)
    factor = torch.where(power > 0, (x * y).sum(1) / power.clamp_min(torch.finfo(x.dtype).tiny), 0)
    return factor, middle[1] - factor * middle[0]


def unrounded(linear: Linear, wanted: Tensor, limit: float, *, known: Collection[str] = ()) -> Exact | None:
    """The weights, by argument, with which the operator gives `wanted`, if those it keeps are their rounding.

    Args:
        linear: The operator, with its call in float64 on the right inputs.
        wanted: What it should give, in float64.
        limit: The relative error (NRMSE) that is none.
        known: The arguments that are the rounding of nothing.
    """
    call, (weight, bias) = linear.call, linear.roles
    bias = "" if bias in known else bias
    fixed = weight in known
    if (fixed and not bias) or linear.multiplied is None:
        return None
    given = call.run()[0][0]
    if given.shape != wanted.shape or not bool(wanted.isfinite().all()):
        return None
    left, columns = linear.rows(wanted - given), linear.multiplied()
    kept = linear.matrix(call.arguments[weight])
    if fixed:
        columns, kept = columns[:, :, :0], kept[:, :, :0]
    if not _as_rounding(left, columns, kept, linear.rows(given), call.arguments.get(bias) if bias else None):
        return None
    scale = kept.square().mean(1).sqrt()
    if bias:
        columns = torch.cat([columns, columns.new_ones(*columns.shape[:2], 1)], 2)
        size = torch.maximum(call.arguments[bias].square().mean(), wanted.square().mean()).sqrt()
        scale = torch.cat([scale, size.expand(len(scale), 1)], 1)
    scale = (scale * SINGLE_ROUNDOFF).clamp_min(torch.finfo(torch.float64).tiny)
    moved = _least(columns * scale[:, None], left)
    if moved is None or float(moved.square().mean().sqrt()) > _ROUNDINGS_MEAN:
        return None
    change = (moved * scale[:, :, None]).mT
    part = change[:, :, : kept.shape[2]]
    allowed = ROUNDINGS * SINGLE_ROUNDOFF * torch.maximum(kept.abs(), kept.abs().mean(2, keepdim=True))
    if bool((part.abs() > allowed).any()):
        return None
    found = {} if fixed else {weight: linear.back(kept + part)}
    if bias:
        found[bias] = call.arguments[bias] + change[:, :, -1].reshape(-1)
    for role, tensor in found.items():
        call = call.with_argument(role, tensor)
    return found if compared(call.run()[0][0], wanted).within(limit) else None


def _as_rounding(left: Tensor, columns: Tensor, kept: Tensor, given: Tensor, bias: Tensor | None) -> bool:
    """Whether a difference is as large as roundings of the weights make it, however many weights could explain it.

    Roundings of single weights add up as the root of the sum of squares; those of a scale that many share add up to
    as much of the result.
    """
    alone = float((columns.square() @ kept.mT.square()).sum())
    shared = float(given.square().sum())
    if bias is not None:
        alone += float(bias.square().sum()) * columns.shape[1]
    allowed = _ROUNDINGS_MEAN * math.sqrt(alone) + _SHARED * math.sqrt(shared)
    return float(left.square().sum()) <= (SINGLE_ROUNDOFF * allowed) ** 2


_SHARED = 3.0  # a sum under a root, the root, and the product with it


def linear_in(site: Site, call: KeptCall) -> Linear | None:
    """The operator as one that is linear in what it keeps, if it is."""
    op = operator_name(call.function)
    roles = _ROLES.get(op)
    if roles is None or roles[0] not in {use.role for use in site.tensors}:
        return None
    x, bias = call.arguments.get(roles[2]), call.arguments.get(roles[1])
    kept = isinstance(bias, Tensor) and roles[1] in {use.role for use in site.tensors}
    if not isinstance(x, Tensor) or (isinstance(bias, Tensor) and not kept):
        return None
    named = roles[0], roles[1] if kept else ""
    weight = call.arguments[roles[0]]
    if op == "embedding":
        return _lookup(call, named, x, weight)
    if op.startswith("conv"):
        return _convolution(call, named, x, weight)
    if weight.dim() != 2:
        return None
    turned = op != "linear"
    return Linear(
        call,
        named,
        lambda: x.reshape(1, -1, x.shape[-1]),
        lambda t: t.reshape(1, -1, t.shape[-1]),
        lambda w: (w.mT if turned else w)[None],
        lambda m: (m[0].mT if turned else m[0]).reshape(weight.shape),
    )


# For each operator the arguments that are its weight, its bias, and what it works on.
_ROLES = {
    "addmm": ("mat2", "input", "mat1"),
    "conv1d": ("weight", "bias", "input"),
    "conv2d": ("weight", "bias", "input"),
    "conv3d": ("weight", "bias", "input"),
    "conv_transpose1d": ("weight", "bias", "input"),
    "conv_transpose2d": ("weight", "bias", "input"),
    "conv_transpose3d": ("weight", "bias", "input"),
    "embedding": ("weight", "", "input"),
    "linear": ("weight", "bias", "input"),
    "matmul": ("other", "", "input"),
}


def _lookup(call: KeptCall, roles: tuple[str, str], x: Tensor, weight: Tensor) -> Linear:
    """A table as the product of which row is taken with the rows that are taken at all."""
    used, place = torch.unique(x, return_inverse=True)
    return Linear(
        call,
        roles,
        lambda: F.one_hot(place.reshape(1, -1), len(used)).to(weight),
        lambda t: t.reshape(1, -1, t.shape[-1]),
        lambda w: w[used].mT[None],
        lambda m: weight.index_copy(0, used, m[0].mT),
    )


def _convolution(call: KeptCall, roles: tuple[str, str], x: Tensor, weight: Tensor) -> Linear | None:
    dimensions, groups = weight.dim() - 2, call.arguments.get("groups", 1)
    if x.dim() != dimensions + 2:
        return None
    if operator_name(call.function).startswith("conv_transpose"):  # inputs x outputs of a group x kernel
        laid = groups, -1, weight.shape[1], weight[0, 0].numel()
        return Linear(
            call,
            roles,
            None,
            lambda t: _grouped(t.flatten(2), groups),
            lambda w: w.reshape(laid).transpose(1, 2).flatten(2),
            lambda m: m.reshape(groups, weight.shape[1], -1, laid[3]).transpose(1, 2).reshape(weight.shape),
        )
    return Linear(
        call,
        roles,
        _columns(call, x, tuple(weight.shape[2:]), groups),
        lambda t: _grouped(t.flatten(2), groups),
        lambda w: w.reshape(groups, -1, w[0].numel()),
        lambda m: m.reshape(weight.shape),
    )


def _columns(call: KeptCall, x: Tensor, kernel: tuple[int, ...], groups: int) -> Callable[[], Tensor] | None:
    """What a convolution multiplies with its kernel."""
    dimensions, padding = len(kernel), call.arguments.get("padding", 0)
    if dimensions > _UNFOLDS or isinstance(padding, str):
        return None
    stride, padding, dilation = (
        _spread(value, dimensions)
        for value in (call.arguments.get("stride", 1), padding, call.arguments.get("dilation", 1))
    )
    if dimensions == 1:
        x, kernel = x.unsqueeze(2), (1, *kernel)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return lambda: _grouped(F.unfold(x, kernel, dilation, padding, stride), groups)  # samples, inputs, places


_UNFOLDS = 2  # dimensions, at most, in which torch does


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    """Samples x channels x places as groups x rows x channels of a group."""
    samples, channels, places = tensor.shape
    tensor = tensor.reshape(samples, groups, channels // groups, places)
    return tensor.permute(1, 0, 3, 2).reshape(groups, samples * places, -1)


def _spread(value: Any, dimensions: int) -> tuple[int, ...]:
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * dimensions if len(found) == 1 else found


_MOST = 2  # rows for each unknown: enough to tell, and no more than needed


def _least(columns: Tensor, wanted: Tensor) -> Tensor | None:
    """The smallest x with `columns` x = `wanted` in each group, as nearly as can be; None where none is found."""
    _, rows, unknown = columns.shape
    step = max(1, rows // max(_MOST * unknown, _AFFORDABLE // unknown**2))
    columns, wanted = columns[:, ::step].cpu(), wanted[:, ::step].cpu()
    found = wanted.new_zeros(len(columns), unknown, wanted.shape[2])
    try:
        for _ in range(2):  # and once more with what the first was off by
            left = wanted - columns @ found
            found = found + torch.linalg.lstsq(columns, left, rcond=_RANK, driver="gelsy").solution
    except RuntimeError:
        return None
    return found if bool(found.isfinite().all()) else None


_AFFORDABLE = 2_000_000_000  # rows times unknowns squared: about a second
# Singular values below this share of the largest say nothing: a change of one roundoff of float32 along them changes
# the result by less than float64's own rounding, 2^-53 / 2^-24 of it.
_RANK = 2.0**-27
