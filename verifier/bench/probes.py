"""Inputs drawn on purpose from those that were given: other sizes, scales, signs, orders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from verifier.diagnose.excitations import enlarged
from verifier.graph.tensors import mapped, tensors_given
from verifier.inputs.samples import batch_size, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.inputs import Inputs

_MOST = 16  # samples: what mixes them up shows, and float64 stays quick


class Draw(NamedTuple):
    """Inputs that were drawn: what they are, in words, and how the models are run on them.

    `resized` says that a tensor has another size than it was given with, which not every model takes; `training`
    that both models are in training mode, but for what draws random numbers.
    """

    name: str
    inputs: Inputs
    resized: bool = False
    training: bool = False


def draws(given: Inputs, seed: int, samples_at_once: int) -> Iterator[Draw]:
    """Every probe that changes anything; numbers that choose among things stay in the range they were given in.

    Other numbers are drawn for so many samples as were compared in float64, which shows nothing but the numbers.
    """
    given = replace(given, other=None)
    count = batch_size(given)
    few = sample(given, samples_at_once)
    for samples in dict.fromkeys((1, 2, 3, min(_MOST, 2 * count))):
        if samples not in (count, samples_at_once):
            yield Draw(a_call(samples), _repeated(given, count, samples), resized=True)
    for name, change in _NUMBERS:
        made = _changed(few, change)
        if made is not None:
            yield Draw(name, made)
    turned = _changed(few, lambda tensor: tensor.flip(0), every=True)
    if turned is not None:
        yield Draw("samples in another order", turned)
    generator = torch.Generator().manual_seed(seed)
    redrawn = _changed(few, lambda tensor: _redrawn(tensor, generator), every=True, whole=True)
    if redrawn is not None:
        yield Draw("other whole numbers of the given range", redrawn)
    larger = _changed(few, lambda tensor: enlarged(tensor) if tensor.dim() == 4 else tensor)  # images
    if larger is not None:
        yield Draw("one row and one column more", larger, resized=True)
    yield Draw("training mode, without dropouts", few, training=True)


def a_call(samples: int) -> str:
    """How a probe with so many samples is called."""
    return f"{samples} sample{'s' if samples > 1 else ''} a call"


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor * factor


_NUMBERS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("numbers scaled by 0.01", _scaled(0.01)),
    ("numbers scaled by 10", _scaled(10.0)),
    ("numbers scaled by 100", _scaled(100.0)),
    ("negated numbers", _scaled(-1.0)),
    ("numbers without their sign", torch.abs),
    ("zeros", torch.zeros_like),
    ("one number everywhere", lambda tensor: torch.full_like(tensor, float(tensor.abs().mean()))),
)


def _changed(
    given: Inputs, change: Callable[[Tensor], Tensor], *, every: bool = False, whole: bool = False
) -> Inputs | None:
    """The inputs with tensors of numbers changed, with `every` also those of integers; None if nothing changes.

    With `whole` integers alone are changed. Masks stay: truth values, and tensors with numbers that are not finite.
    """

    def made(tensor: Tensor) -> Tensor:
        integer = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
        if (whole and not integer) or (integer and not every):
            return tensor
        if not integer and not _plain(tensor):
            return tensor
        return change(tensor.detach())

    before = tensors_given((given.args, given.kwargs))
    args, kwargs = mapped((given.args, given.kwargs), made)
    after = tensors_given((args, kwargs))
    if all(one.equal(other) for one, other in zip(before, after, strict=True)):
        return None
    return replace(given, args=args, kwargs=kwargs)


def _plain(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isfinite().all())


def _repeated(given: Inputs, count: int, samples: int) -> Inputs:
    """So many samples, those that were given over and over."""

    def made(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != count:
            return tensor
        order: Any = torch.arange(samples, device=tensor.device) % count
        return tensor[order]

    args, kwargs = mapped((given.args, given.kwargs), made)
    return replace(given, args=args, kwargs=kwargs)


def _redrawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    low, high = (int(each) for each in tensor.aminmax())
    if low == high:
        return tensor
    drawn = torch.randint(low, high + 1, tuple(tensor.shape), generator=generator, dtype=torch.int64)
    return drawn.to(tensor.device, tensor.dtype)
