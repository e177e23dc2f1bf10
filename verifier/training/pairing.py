"""Two models that are to be trained alike: paired as they run in training mode, with one set of initial weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from verifier.align import align
from verifier.bench.assessment import Assessor
from verifier.bench.running import Caster, Subject, arguments, cast
from verifier.border.accounts import account
from verifier.border.programs import by_program
from verifier.border.signals import check_unanswered
from verifier.errors import InputError, ModelError, UsageError, VerifierError
from verifier.graph import record
from verifier.inputs import given as making
from verifier.judge import STRICT, Cell
from verifier.models import specs
from verifier.models.copying import copy_with, state_of
from verifier.proof.proving import proved
from verifier.records import ModelInfo
from verifier.weights import choose, fingerprints, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.graph import Graph
    from verifier.weights import Masters

_WEIGHTS = "give init, imagenet, or a weights file"


@dataclass(frozen=True)
class Side:
    """One of the two models as it was given; it is never trained itself."""

    role: str
    spec: str
    model: nn.Module
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, role: str, model: nn.Module | str, seed: int) -> Side:
        """The model, built if it is a specification."""
        if isinstance(model, str):
            source = specs.load(model, seed=seed)
            return cls(role, source.spec, source.model, source.notes)
        kind = type(model)
        return cls(role, f"{kind.__module__}.{kind.__qualname__}", model)

    def fresh(self, state: Mapping[str, Tensor], cell: Cell) -> nn.Module:
        """A copy in training mode with tensors of its own, which start as those of `state` are in `cell`."""
        made = {name: cast(tensor, cell) for name, tensor in state.items()}
        return copy_with(self.model, made, lambda tensor: cast(tensor, cell), role=self.role).train()

    def record(self, inputs: making.Inputs, cell: Cell) -> Graph:
        """The graph of a forward pass in training mode.

        Raises:
            InputError: The baseline does not take such images.
            ModelError: The candidate fails on what the baseline takes.
        """
        args, kwargs = arguments(inputs, cell)
        try:
            return record(self.fresh(state_of(self.model), cell), args, kwargs)
        except VerifierError:
            raise
        except BaseException as error:
            check_unanswered(error)
            what = account(error)
            if self.role == "baseline":
                shape = inputs.info.shapes[0]
                raise by_program(
                    InputError(f"the baseline {self.spec} does not take images of shape {shape}: {what}")
                ) from error
            raise by_program(
                ModelError(f"the candidate {self.spec} fails on images that the baseline takes: {what}")
            ) from error

    def info(self, graph: Graph) -> ModelInfo:
        """What a record says of the model."""
        return ModelInfo(
            spec=self.spec,
            type=type(self.model).__name__,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            sites=len(graph.comparable),
        )


@dataclass(frozen=True)
class Pairing:
    """Both models, which of their sites and tensors belong together, and the tensors they start from."""

    baseline: Side
    candidate: Side
    alignment: Alignment
    masters: Masters

    @property
    def sides(self) -> tuple[Side, Side]:
        """The baseline and the candidate."""
        return self.baseline, self.candidate

    def fresh(self, cell: Cell) -> tuple[nn.Module, nn.Module]:
        """The baseline and the candidate to be trained, from identical weights."""
        return (
            self.baseline.fresh(self.masters.baseline, cell),
            self.candidate.fresh(self.masters.candidate, cell),
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
    """
    if weights in ("as-is", "calibrated", "transfer"):
        raise UsageError(f"--weights {weights} is nothing to start a training from; {_WEIGHTS}.")
    ours, theirs = Side.of("baseline", baseline, seed), Side.of("candidate", candidate, seed)
    given = making.tensors(images)
    with torch.no_grad():
        graphs = ours.record(given, cell), theirs.record(given, cell)
        shapes = [{n: tuple(t.shape) for n, t in state_of(side.model).items()} for side in (ours, theirs)]
        known = resolve(parameter_map or {}, shapes[0], shapes[1])
        alignment = align(
            graphs[0],
            graphs[1].with_outputs_like(graphs[0]),
            (fingerprints(state_of(ours.model)), fingerprints(state_of(theirs.model))),
            known,
        )
        masters = choose(
            weights,
            ours.model,
            theirs.model,
            alignment,
            arguments(given, cell),
            given=known,
            baseline_spec=ours.spec,
            seed=seed,
        )
        subject = Subject(ours.model, theirs.model, alignment, masters)
        if alignment.rebuilt:
            with contextlib.suppress(ModelError):  # what cannot be proved stays a claim
                subject = proved(subject, given, Caster())
        if _built_otherwise(subject.alignment):
            subject = _settled(subject, given)
    return Pairing(ours, theirs, subject.alignment, subject.masters)


def _built_otherwise(alignment: Alignment) -> bool:
    """Whether pairs may be wrong guesses: sites are left over, or two of a pair have not the same shape."""
    ours, theirs = alignment.baseline.sites, alignment.candidate.sites
    return bool(alignment.unmatched) or any(
        ours[pair.baseline].shape != theirs[pair.candidate].shape for pair in alignment.pairs
    )


def _settled(subject: Subject, given: making.Inputs) -> Subject:
    """The subject without the pairs that a float64 run disproves, where one side takes more operators, say."""
    training = [
        copy_with(model, state_of(model), lambda tensor: tensor, role=role).train()
        for model, role in ((subject.baseline, "baseline"), (subject.candidate, "candidate"))
    ]
    live = replace(subject, baseline=training[0], candidate=training[1])
    assessor = Assessor(live, [given], given, STRICT, "auto", lambda *_: None)
    try:
        assessor.semantics([given], Cell("cpu", "float32"))
    except VerifierError:  # the training will say what is wrong with it
        return subject
    return replace(subject, alignment=assessor.subject.alignment, masters=assessor.subject.masters)
