"""Two models that are to be trained alike: paired as they run in training mode, with one set of initial weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from verifier.bench import pairing
from verifier.bench.side import Side
from verifier.errors import ModelError, UsageError, VerifierError
from verifier.inputs import tensors
from verifier.training.forward_causes import in_training
from verifier.weights import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from verifier.align import Alignment
    from verifier.bench.subject import Subject
    from verifier.cells import Cell
    from verifier.inputs import Inputs
    from verifier.weights import Masters

_WEIGHTS = "give init, imagenet, or a weights file"


@dataclass(frozen=True)
class Pairing:
    """Both models, which of their sites and tensors belong together, and the tensors they start from."""

    baseline: Side
    candidate: Side
    subject: Subject

    @property
    def alignment(self) -> Alignment:
        """Which sites belong together."""
        return self.subject.alignment

    @property
    def masters(self) -> Masters:
        """The tensors both start from."""
        return self.subject.masters

    @property
    def sides(self) -> tuple[Side, Side]:
        """The baseline and the candidate."""
        return self.baseline, self.candidate

    @property
    def graded(self) -> frozenset[int]:
        """Pairs whose gradients are the same by definition: all that reads the two tensors is paired as well."""
        alignment = self.alignment
        baseline, candidate = alignment.baseline, alignment.candidate
        return frozenset(
            position
            for position, (b, c) in enumerate(alignment.pairs)
            if sorted(alignment.partner.get(reader, -1) for reader in baseline.consumers[b])
            == [*candidate.consumers[c]]
            and (b in baseline.outputs) == (c in candidate.outputs)
        )

    def fresh(self, cell: Cell) -> tuple[nn.Module, nn.Module]:
        """The baseline and the candidate to be trained, from identical weights."""
        return (
            self.baseline.trained(self.masters.baseline, cell),
            self.candidate.trained(self.masters.candidate, cell),
        )


def pair(
    baseline: nn.Module | str,
    candidate: nn.Module | str,
    images: Tensor,
    cell: Cell,
    *,
    weights: str = "init",
    parameter_map: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Pairing:
    """Pair two models by what they do with `images` in training mode.

    Args:
        baseline: The trusted model, or a specification that leads to one.
        candidate: The model under test, likewise.
        images: A batch as both will be given, (N, C, H, W), N at least 2.
        cell: Where they will be trained.
        weights: What both start from: `init`, `imagenet`, or a weights file.
        parameter_map: What is known of the candidate's tensors, as `verifier.verify` takes it.
        seed: For building the models.

    Raises:
        UsageError: `weights` would not give both the same.
        InputError: The baseline does not take such images.
        ModelError: The candidate fails on what the baseline takes, or a model cannot be copied.
        DeviceError: Memory ran out.
    """
    if weights in ("as-is", "calibrated", "transfer"):
        raise UsageError(f"--weights {weights} is nothing to start a training from; {_WEIGHTS}.")
    sides = Side.of("baseline", baseline, seed), Side.of("candidate", candidate, seed)
    given = tensors(images)
    with torch.no_grad():
        known = resolve(parameter_map or {}, sides[0].shapes(), sides[1].shapes())
        subject = pairing.pair(*sides, given, weights=weights, known=known, seed=seed, cell=cell, proof=False)
        with contextlib.suppress(ModelError):  # what cannot be proved stays a claim
            subject = pairing.prove(subject, given)
        if _built_otherwise(subject.alignment):
            subject = _settled(subject, given)
    return Pairing(*sides, subject)


def _built_otherwise(alignment: Alignment) -> bool:
    """Whether pairs may be wrong guesses: sites are left over, or two of a pair have not the same shape."""
    sites = alignment.baseline.sites, alignment.candidate.sites
    return bool(alignment.unmatched) or any(
        sites[0][pair.baseline].shape != sites[1][pair.candidate].shape for pair in alignment.pairs
    )


def _settled(subject: Subject, given: Inputs) -> Subject:
    """The subject without the pairs that a float64 run disproves, where one side takes more operators, say."""
    try:
        found = in_training(subject, given).subject
    except VerifierError:  # the training will say what is wrong with it
        return subject
    return replace(subject, alignment=found.alignment, masters=found.masters)
