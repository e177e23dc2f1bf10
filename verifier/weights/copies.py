"""Whether tensors were made from others, by what they hold: an edited copy is told from draws of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from verifier.metrics import collect, measure
from verifier.weights.calibration import varies

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping

    from torch import Tensor

    from verifier.align import Assembly


def stored(
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    mapping: Mapping[str, Assembly],
    constants: Collection[str],
) -> dict[str, Tensor]:
    """What the candidate's tensors would be if they were the baseline's as it is."""
    shapes = {name: tuple(tensor.shape) for name, tensor in baseline.items()}
    return {
        name: assembly.stored(baseline, candidate[name])
        for name, assembly in mapping.items()
        if assembly.fits(shapes, candidate[name].shape) and name not in constants
    }


def is_copy(stored: Mapping[str, Tensor], candidate: Mapping[str, Tensor]) -> bool:
    """Whether most of the tensors come of those they would be (`stored`) if they were the baseline's."""
    telling = _telling(stored)
    same = sum(related(stored[name], candidate[name]) for name in telling)
    return len(telling) > 0 and same > len(telling) / 2


def is_part(baseline: Tensor, candidate: Tensor) -> bool:
    """Whether the numbers of one tensor, of another shape, are all among those of the other."""
    if not varies(candidate):
        return False
    baseline, some = baseline.to(candidate), candidate.reshape(-1)[:_SOME]
    return bool(torch.isin(some, baseline).all()) and bool(torch.isin(candidate, baseline).all())


_SOME = 64  # elements that mostly tell, before all are looked for


def related(baseline: Tensor, candidate: Tensor) -> bool:
    """Whether one tensor was made from the other; fresh draws correlate by chance only."""
    if baseline.is_complex() != candidate.is_complex():
        return False
    if not baseline.numel():
        return True
    (moments,) = collect([measure(baseline.detach(), candidate.detach().reshape(baseline.shape))])
    if moments.finite < moments.elements or moments.identical:
        return moments.identical and moments.finite == moments.elements
    # Of n numbers drawn independently the correlation is spread by 1 / sqrt(n).
    least = min(0.99, max(0.5, 4 / math.sqrt(max(1, baseline.numel()))))
    sums = moments.centred()
    size = math.sqrt(sums.aa) * math.sqrt(sums.bb)
    return size > 0 and sums.ab / size > least


def is_edit(baseline: Tensor, candidate: Tensor) -> bool:
    """Whether a parameter that differs from its twin was edited rather than initialised otherwise."""
    if not (varies(baseline) and varies(candidate)):
        return float((wide(candidate) - wide(baseline)).abs().max()) < 0.5
    return related(baseline, candidate)


def looks_drawn(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor lies as torch's linear layers and convolutions draw theirs: evenly within 1 / sqrt(fan-in).

    Of n numbers the largest is about n / (n + 1) of the bound (torch.nn.Linear.reset_parameters).
    """
    owner = name.rpartition(".")[0]
    weight = state.get(f"{owner}.weight" if owner else "weight")
    if weight is None or weight.dim() < 2 or not weight.is_floating_point():
        return False
    bound = 1 / math.sqrt(weight[0].numel())
    largest, count = float(state[name].abs().max()), state[name].numel()
    return (1 - _SPREAD / count) * bound <= largest <= bound * (1 + 1e-6)


_SPREAD = 8  # the largest of n even draws is below 1 - 8 / n once in three thousand times (e^-8)


def fingerprints(state: Mapping[str, Tensor]) -> dict[str, Hashable]:
    """What tells the tensors of a model apart by value: a few of their elements. None for constants.

    It is the same for a matrix and for the one it is stored as where dimensions have changed places.
    """
    return {name: _fingerprint(tensor) if varies(tensor) else None for name, tensor in state.items()}


_TELLING = 64  # elements: two tensors of random numbers agree in none of them


def _fingerprint(tensor: Tensor) -> Hashable:
    found = _sample(tensor.detach())
    if tensor.dim() != _MATRIX or tensor.is_complex():
        return found
    return min(found, _sample(tensor.detach().mT))


_MATRIX = 2


def _sample(tensor: Tensor) -> tuple[Any, ...]:
    step = max(1, tensor.numel() // _TELLING)
    places = torch.arange(0, tensor.numel(), step, device=tensor.device)[:_TELLING]
    if tensor.dim() != _MATRIX:
        return tuple(wide(tensor.reshape(-1)[places]).tolist())
    rows, columns = (
        places // tensor.shape[1],
        places % tensor.shape[1],
    )  # a turned matrix is not to be written out
    return tuple(wide(tensor[rows, columns]).tolist())


def _telling(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that tell whether others were made from them: a few numbers do not, where there are more."""
    found = [name for name, tensor in tensors.items() if varies(tensor)]
    return [name for name in found if tensors[name].numel() >= _TELLING] or found


def wide(tensor: Tensor) -> Tensor:
    """A copy in double precision."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
