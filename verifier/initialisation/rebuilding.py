"""Building two models anew from one seed after another, and which of their tensors belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from verifier.align import Assembly
from verifier.bench.pairing import pair
from verifier.bench.side import Side
from verifier.border.error_texts import account
from verifier.border.signals import check_unanswered
from verifier.cells import Cell
from verifier.environment import preserved
from verifier.errors import ModelError, UsageError, VerifierError
from verifier.graph import Graph, record
from verifier.inputs import normal, tensors
from verifier.inputs.samples import sample
from verifier.models import specs
from verifier.models.casting import arguments
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from verifier.inputs import Inputs

    State = dict[str, Tensor]

# Pixels a side to record a network on, in this order; one of them fits most that take images.
SIZES = (64, 224, 32)


@dataclass(frozen=True, slots=True)
class Builder:
    """What builds one of the two models from any seed."""

    role: str
    spec: str
    build: Callable[[int], nn.Module]

    @classmethod
    def of(cls, role: str, model: str | Callable[[], nn.Module]) -> Builder:
        """From a specification, or from a function without arguments.

        Raises:
            UsageError: It is a live model, which nobody can build anew.
        """
        if isinstance(model, str):
            return cls(role, model, lambda seed: specs.load(model, seed=seed).model)
        if isinstance(model, nn.Module) or not callable(model):
            raise UsageError(
                f"the {role} is a {type(model).__name__}; initial values are compared of models that are built anew. "
                "Give a specification, or a function that builds the model."
            )
        name = f"{model.__module__}.{getattr(model, '__qualname__', type(model).__name__)}"
        return cls(role, name, lambda seed: _called(role, model, seed))

    def drawn(self, seed: int) -> nn.Module:
        """The model as it is built after `torch.manual_seed(seed)`; no random state is touched.

        Raises:
            UsageError: It has parameters without a shape.
        """
        model = self.build(seed)
        if any(map(is_lazy, model.parameters())):
            raise UsageError(
                f"the {self.role} has lazy parameters, whose values are drawn when it first runs. "
                "Name a function that builds it and runs it once."
            )
        return model


def _called(role: str, build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with preserved():
        torch.manual_seed(seed)
        model = build()
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"the function for the {role} returned a {type(model).__name__}, not a torch.nn.Module."
        )
    return model


def correspondence(
    baseline: nn.Module,
    candidate: nn.Module,
    given: Mapping[str, Assembly | None],
    inputs: Inputs | None,
    specs: tuple[str, str],
) -> Mapping[str, Assembly]:
    """For each of the candidate's tensors that has a partner, how it is made of the baseline's.

    By name where both models have the same names and shapes; else both run once and are aligned.

    Args:
        baseline: The baseline; a copy of it runs.
        candidate: The candidate, likewise.
        given: What is known (`verifier.weights.resolve`); None for a tensor without a partner.
        inputs: What to run on; None for random images of a size that both take.
        specs: What the two are called in messages.

    Raises:
        ModelError: The models do not run on the inputs.
    """
    shapes = [
        [(name, tensor.shape) for name, tensor in state_of(model).items()] for model in (baseline, candidate)
    ]
    found: Mapping[str, Assembly]
    if shapes[0] == shapes[1]:
        found = {name: Assembly.of(name) for name, _ in shapes[0]}
    else:
        few, graphs = _recorded(baseline, candidate, inputs, specs)
        sides = Side.of("baseline", baseline, 0), Side.of("candidate", candidate, 0)
        with torch.no_grad():
            found = pair(*sides, few, weights="init", known=given, graphs=graphs).masters.assemblies
    merged: dict[str, Assembly | None] = {**found, **given}
    return {name: assembly for name, assembly in merged.items() if assembly is not None}


def _recorded(
    baseline: nn.Module, candidate: nn.Module, inputs: Inputs | None, specs: tuple[str, str]
) -> tuple[Inputs, tuple[Graph, Graph]]:
    tried = [normal(2, size, 0) for size in SIZES] if inputs is None else [sample(tensors(inputs), 2)]
    error: BaseException | None = None
    for few in tried:
        try:
            return few, (_graph("baseline", baseline, few), _graph("candidate", candidate, few))
        except VerifierError:
            raise
        except BaseException as raised:
            check_unanswered(raised)
            error = raised
    what = "" if error is None else account(error)
    how = "random images of 32, 64 and 224 pixels" if inputs is None else "the inputs given"
    raise ModelError(
        f"{specs[0]} and {specs[1]} name their tensors differently, and to find out which belong together both must "
        f"run, which they do not on {how} ({what}). Give inputs they take, or the same names."
    ) from error


def _graph(role: str, model: nn.Module, inputs: Inputs) -> Graph:
    with preserved(), torch.inference_mode(mode=False):
        copy = copy_with(model, state_of(model), lambda tensor: tensor, role=role)
        args, kwargs = arguments(inputs, _cell(model))
        return record(copy, args, kwargs)


def _cell(model: nn.Module) -> Cell:
    tensor = next((each for each in state_of(model).values() if each.is_floating_point()), torch.empty(0))
    return Cell(str(tensor.device), str(tensor.dtype).removeprefix("torch."))
