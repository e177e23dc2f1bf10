"""A norm that one side has folded into the product before it: the two operators of the other side as one call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from verifier.graph.operators import operator_name
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import KeptCall, Site

    Made = tuple[Site, KeptCall]


class _Fold(NamedTuple):
    """A product with the norm behind it as one call, and what each number of its tensors may be off by in float32."""

    product: Made
    site: Site
    call: KeptCall
    allowed: dict[str, Tensor]


def folded(baseline: Neighbourhood, candidate: Neighbourhood) -> tuple[Neighbourhood, Neighbourhood] | None:
    """Both sides, where the product and the norm of one are one call as they are in the other.

    What the candidate keeps counts as that of the baseline's fold but for the rounding to float32; where the baseline
    keeps it, what is folded of the candidate's counts as that. None where nothing is folded.
    """
    found = _paired(baseline, candidate)
    if found is not None:
        candidate, pairs = found
        for (site, call), fold in pairs:
            baseline = _put(baseline, fold.site, fold.call, fold.product[0].index)
            candidate = _put(candidate, site, _unrounded(call, fold))
        return baseline, candidate
    found = _paired(candidate, baseline)
    if found is None:
        return None
    baseline, pairs = found
    for (_, call), fold in pairs:
        candidate = _put(candidate, fold.site, _as_kept(fold, call), fold.product[0].index)
    return baseline, candidate


def _paired(
    apart: Neighbourhood, whole: Neighbourhood
) -> tuple[Neighbourhood, list[tuple[Made, _Fold]]] | None:
    """The other side with its products whole, and what of it may hold each fold of the one."""
    folds = list(_folds(apart))
    whole = _composed(whole) if folds else whole
    wholes = [each for each in _calls(whole) if _weight(each[1]) is not None and not _normed(whole, each[0])]
    pairs: dict[int, tuple[Made, _Fold]] = {}
    for fold in folds:
        near = [each for each in wholes if each[0].index not in pairs and _may_hold(each[1], fold)]
        if near:
            best = min(near, key=lambda each: _apart(each[1], fold))
            pairs[best[0].index] = best, fold
    return (whole, [*pairs.values()]) if pairs else None


def _calls(side: Neighbourhood) -> list[Made]:
    itself = [] if side.site is None or side.call is None else [(side.site, side.call)]
    return [*side.beyond, *side.between, *itself]


def is_product(site: Site, call: KeptCall) -> bool:
    """Whether a call multiplies with a weight that it keeps, each of whose rows makes a channel."""
    known = site.op == "linear" or (site.op.startswith("conv") and not site.op.startswith("conv_transpose"))
    return known and isinstance(call.arguments.get("weight"), Tensor) and "weight" in call.state


class Scaling(NamedTuple):
    """A product, and what alone stands behind it: a factor for each or all of its channels, and perhaps a shift."""

    product: Made
    times: Made
    factor: Tensor
    added: Made | None
    shift: Tensor | None


def scalings(side: Neighbourhood) -> Iterator[Scaling]:
    """The products of one side that are scaled by numbers that it keeps or has written."""
    for site, call in _calls(side):
        times = _behind(side, site, "mul") if is_product(site, call) else None
        factor = None if times is None else _by_channel(times, site)
        if times is None or factor is None:
            continue
        added = _behind(side, times[0], "add")
        shift = None if added is None else _by_channel(added, site)
        yield Scaling((site, call), times, factor, None if shift is None else added, shift)


def _composed(side: Neighbourhood) -> Neighbourhood:
    """The side where a product, what it is multiplied by and what is added behind it are one product."""
    for (site, call), times, factor, added, shift in list(scalings(side)):
        weight, bias = call.arguments["weight"], call.arguments.get("bias")
        spread = factor.reshape(-1, *[1] * (weight.dim() - 1))
        moved = bias * factor if isinstance(bias, Tensor) else torch.zeros_like(factor)
        whole = call.with_argument("weight", weight * spread, is_state=True)
        whole = whole.with_argument("bias", moved if shift is None else moved + shift, is_state=True)
        side = _put(side, _product_at((added or times)[0], site), whole, site.index)
        side = side if added is None else replace(side, between=_without(side.between, times[0]))
    return side


def _product_at(place: Site, product: Site) -> Site:
    """A site that gives what it gave, as the product that it is now."""
    return replace(
        place,
        op=product.op,
        inputs=product.inputs,
        operands=product.operands,
        tensors=product.tensors,
        attributes=product.attributes,
    )


def _behind(side: Neighbourhood, site: Site, op: str) -> Made | None:
    """The operator that alone reads a site, if it is this one with a stored tensor or a number, and it is seen."""
    readers = side.graph.consumers[site.index]
    found = [each for each in _calls(side) if [each[0].index] == [*readers]]
    if not found or found[0][0].op != op or len(found[0][0].tensors) > 1:
        return None
    alone = found[0][0].operands == (site.index,) and found[0][1].arguments.get("alpha", 1) == 1
    return found[0] if alone else None


def _by_channel(made: Made, product: Site) -> Tensor | None:
    """What an operator behind a product works with beside it, if that is a number for each or all of its channels."""
    (site, call), dimension = made, -1 if product.op == "linear" else 1
    wanted = [1] * len(product.shape)
    wanted[dimension] = product.shape[dimension]
    stored = call.arguments.get(site.tensors[0].role if site.tensors else "other")
    if isinstance(stored, int | float):
        stored = torch.tensor(stored, dtype=call.operands[0].dtype)
    if not isinstance(stored, Tensor):
        return None
    if stored.numel() == 1 and stored.dim() <= len(wanted):
        return stored.reshape(1).expand(wanted[dimension])
    return stored.reshape(-1) if [1] * (len(wanted) - stored.dim()) + [*stored.shape] == wanted else None


def _without(calls: tuple[Made, ...], site: Site) -> tuple[Made, ...]:
    return tuple(each for each in calls if each[0].index != site.index)


def _folds(side: Neighbourhood) -> Iterator[_Fold]:
    calls = _calls(side)
    for site, call in calls:
        readers = [each for each in calls if each[0].index in side.graph.consumers[site.index]]
        if _weight(call) is None or len(readers) != 1 or len(side.graph.consumers[site.index]) != 1:
            continue
        fold = _fold((site, call), readers[0])
        if fold is not None:
            yield fold


def _normed(side: Neighbourhood, site: Site) -> bool:
    return any(side.graph.sites[k].op == "batch_norm" for k in side.graph.consumers[site.index])


def _weight(call: KeptCall) -> Tensor | None:
    """The weight of a product each of whose results is a channel."""
    weight = call.arguments.get("weight")
    op = operator_name(call.function)
    known = op.startswith("conv") or (op == "linear" and all(each.dim() == 2 for each in call.operands))
    return weight if known and isinstance(weight, Tensor) and "weight" in call.state else None


def _fold(product: Made, norm: Made) -> _Fold | None:
    (site, call), (behind, of_norm) = product, norm
    given = of_norm.arguments
    mean, variance = given.get("running_mean"), given.get("running_var")
    if behind.op != "batch_norm" or behind.attributes.get("training", False) or given.get("training", False):
        return None
    if not (isinstance(mean, Tensor) and isinstance(variance, Tensor)) or behind.operands != (site.index,):
        return None
    if not {"running_mean", "running_var"} <= of_norm.state:
        return None
    made, terms = fold(site.op, call.arguments, given)
    weight = call.arguments["weight"]
    for role, tensor in made.items():
        call = call.with_argument(role, tensor.to(weight), is_state=True)
    allowed = ROUNDINGS * SINGLE_ROUNDOFF
    return _Fold(
        product,
        _product_at(behind, site),
        call,
        {"weight": allowed * made["weight"].abs(), "bias": allowed * terms},
    )


def fold(op: str, product: Mapping[str, Any], norm: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """What a product keeps, by argument, if the norm behind it is folded in, in float64.

    Args:
        op: The product's operator.
        product: Its arguments: `weight`, `bias`, `groups`.
        norm: Those of the norm, running statistics among them.

    Returns:
        The weight and the bias, and for each number of the bias the largest term that it is the sum of.
    """
    zero = torch.zeros_like(norm["running_mean"], dtype=torch.float64)
    mean, variance, shift, bias = (
        zero if each is None else each.double()
        for each in (norm["running_mean"], norm["running_var"], norm.get("bias"), product.get("bias"))
    )
    factor = (variance + float(norm.get("eps", _EPS))).rsqrt()
    if norm.get("weight") is not None:
        factor = factor * norm["weight"].double()
    weight = product["weight"].double()
    spread = factor.reshape(-1, *[1] * (weight.dim() - 1))
    if op.startswith("conv_transpose"):  # inputs x outputs of a group x kernel
        groups, (into, out) = product.get("groups", 1), weight.shape[:2]
        each = factor.reshape(groups, 1, out).expand(groups, into // groups, out)
        spread = each.reshape(into, out, *[1] * (weight.dim() - 2))
    terms = torch.stack([shift.abs(), (mean * factor).abs(), (bias * factor).abs()])
    return {"weight": weight * spread, "bias": shift + (bias - mean) * factor}, terms.amax(0)


_EPS = 1e-5  # torch's own


def _may_hold(call: KeptCall, fold: _Fold) -> bool:
    """Whether a call may hold a fold; one with the very weight of the product lacks the norm."""
    held, exact, plain = (each.arguments["weight"] for each in (call, fold.call, fold.product[1]))
    alike = operator_name(call.function) == operator_name(fold.call.function) and held.shape == exact.shape
    return alike and (not held.equal(plain) or exact.equal(plain))


def _apart(call: KeptCall, fold: _Fold) -> float:
    return float((call.arguments["weight"] - fold.call.arguments["weight"]).norm())


def _unrounded(call: KeptCall, fold: _Fold) -> KeptCall:
    """The call with the numbers of the fold where those that it keeps are their rounding."""
    for role, allowed in fold.allowed.items():
        held, exact = call.arguments.get(role), fold.call.arguments[role]
        if not isinstance(held, Tensor):
            if not bool((exact.abs() > allowed).any()):  # a shift of nothing
                call = call.with_argument(role, exact, is_state=True)
            continue
        if held.shape != exact.shape or role not in call.state:
            continue
        call = call.with_argument(role, _nearest(held, exact, allowed))
    return call


def _nearest(held: Tensor, exact: Tensor, allowed: Tensor) -> Tensor:
    for kind in (torch.float16, torch.bfloat16):
        if held.to(kind).to(held).equal(held):  # what was rounded before it was rounded to fewer digits
            near = [(exact + sign * allowed.to(exact)).to(kind).to(held) == held for sign in (-1, 0, 1)]
            return torch.where(torch.stack(near).any(0), exact.to(kind).to(held), held)
    return torch.where((held - exact).abs() <= allowed, exact, held)


def _as_kept(fold: _Fold, kept: KeptCall) -> KeptCall:
    """The fold with the numbers that a call keeps where they are the rounding of its own to float32."""
    call = fold.call
    for role, allowed in fold.allowed.items():
        held, exact = kept.arguments.get(role), call.arguments[role]
        if not isinstance(held, Tensor):
            if not bool((exact.abs() > allowed).any()):  # a shift of nothing
                call = call.with_argument(role, None, is_state=False)
        elif held.shape == exact.shape and role in kept.state:
            call = call.with_argument(role, torch.where((held - exact).abs() <= allowed, held, exact))
    return call


def _put(side: Neighbourhood, site: Site, call: KeptCall, without: int | None = None) -> Neighbourhood:
    """The side with a call in the place of that of one site, and without another site."""
    between, beyond = (
        tuple(
            (site, call) if each.index == site.index else (each, made)
            for each, made in calls
            if each.index != without
        )
        for calls in (side.between, side.beyond)
    )
    changed = replace(side, between=between, beyond=beyond)
    if side.site is None or side.site.index != site.index:
        return changed
    return replace(changed, site=site, call=call, reads=tuple(call.operands), sources=site.operands)
