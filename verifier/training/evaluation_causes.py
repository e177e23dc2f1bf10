"""A module that one side alone has put into evaluation mode: what its site would be in training mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from verifier.training.baseline_batch import ACTIVATION
from verifier.training.fitting import agree
from verifier.training.records import Phase, TrainingCause

if TYPE_CHECKING:
    from torch import Tensor, nn

    from verifier.training.baseline_batch import Place
    from verifier.training.candidate_batch import CandidateBatch
    from verifier.training.watching import Watch

_CLOSE = 1e-9


def cause(
    compared: CandidateBatch, place: Place, sites: tuple[int, int], baseline: Watch, candidate: Watch
) -> TrainingCause | None:
    """Why a site of the forward pass differs, if its module is in training mode on one side alone.

    `sites` are those of the pair. It is confirmed where the closed form of a batch norm or a dropout makes the
    tensor of the one in evaluation mode of the other's.
    """
    modes = baseline.evaluates(sites[0]), candidate.evaluates(sites[1])
    if (
        (modes[0] is None) == (modes[1] is None)
        or place.what != ACTIVATION
        or place.phase is not Phase.FORWARD
    ):
        return None
    here = modes[1] is not None
    told = ("in evaluation mode", "in training mode") if here else ("in training mode", "in evaluation mode")
    name = modes[1] if here else modes[0]
    confirmed = False
    if place in compared.evidence.exceeding:
        b, c = (tensor.double() for tensor in compared.evidence.exceeding[place])
        trained, evaluated = (b, c) if here else (c, b)
        watch, inner = (candidate, modes[1]) if here else (baseline, modes[0])
        module = watch.model.get_submodule(str(inner))
        before = _tensors(compared, str(inner), candidate_side=here)
        confirmed = _normed(module, trained, evaluated, before) or _kept(trained, evaluated)
    return TrainingCause(
        code="evaluation-mode",
        summary=f"{name or 'the model'} is {told[0]}, the baseline's {told[1]}",
        confirmed=confirmed,
    )


def _tensors(compared: CandidateBatch, scope: str, *, candidate_side: bool) -> dict[str, Tensor]:
    """The tensors a module had before the batch: both sides have the same, by the candidate's names."""
    found = {}
    for name, tensor in {**compared.evidence.weights, **compared.evidence.buffers}.items():
        recipe = compared.relation.recipes.get(name)
        own = name if candidate_side else (recipe.names[0] if recipe is not None else "")
        if own.rpartition(".")[0] == scope:
            found[own.rpartition(".")[2]] = tensor.double()
    return found


def _normed(module: nn.Module, trained: Tensor, evaluated: Tensor, before: dict[str, Tensor]) -> bool:
    """Whether both are normalised alike but for the statistics: those of the batch undo what those kept did.

    y = g (x - m) / sqrt(v + e) + s for either pair of m and v, so that each channel of the one, with its own mean and
    variance, is normalised to the other: what is normalised with kept statistics and then with the batch's is what is
    normalised with the batch's, but for e.
    """
    if "running_mean" not in before or trained.dim() < 2:
        return False
    eps = float(getattr(module, "eps", 0.0))
    shape = [1, -1, *[1] * (trained.dim() - 2)]
    gain = before.get("weight", torch.ones_like(before["running_mean"]))
    shift = before.get("bias", torch.zeros_like(gain))
    if not bool(gain.abs().min() > 0):
        return False
    spread = (before["running_var"] + eps).sqrt()
    x = (evaluated - shift.view(shape)) / gain.view(shape) * spread.view(shape) + before["running_mean"].view(
        shape
    )
    made = torch.nn.functional.batch_norm(x, None, None, gain, shift, training=True, eps=eps)
    return agree(trained, made, _CLOSE)


def _kept(trained: Tensor, evaluated: Tensor) -> bool:
    """Whether the one is the other where it is not 0, times what a dropout multiplies what it keeps with."""
    left = trained != 0
    if not bool(left.any()) or bool(left.all()):
        return False
    factor = float((trained[left] * evaluated[left]).sum() / evaluated[left].square().sum())
    return factor > 1 and agree(trained[left], factor * evaluated[left], _CLOSE)
