"""A network tested at several scales: it is given each picture at several sizes, and its scores are averaged."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from verifier.models import specs

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "scales"
"""Before a specification: `scales:torchvision:resnet50`."""


def load(spec: str, *, seed: int | None) -> specs.Source:
    """The model that a specification names, as `specs.load` builds it; after `PREFIX` one that averages its scores.

    Raises:
        SourceError: As `specs.load` does.
        CannotRunError: Likewise.
    """
    kind, colon, name = spec.partition(":")
    if not colon or kind != PREFIX:
        return specs.load(spec, seed=seed)
    found = specs.load(name, seed=seed)
    return replace(found, model=averaging(found.model))


def averaging(model: nn.Module) -> nn.Module:
    """`model`, but its forward takes pictures of several sizes, (N, C, H, W) each, and gives the mean of its scores.

    Modules, parameters and their names are the model's own; it is left as it was. He et al. (2015), section 3.4,
    average the scores, too.

    Raises:
        TypeError: When it is run: it does not return one tensor.
    """
    kind = type(model)

    def forward(self: nn.Module, *pictures: Tensor) -> Tensor:
        scores = [kind.forward(self, each) for each in pictures]
        if not all(isinstance(each, torch.Tensor) for each in scores):
            raise TypeError(
                f"scores of several scales are averaged, and {kind.__name__} returns no single tensor of them"
            )
        # No stack: its first dimension is not that of the samples, which every other site's is.
        mean: Tensor = functools.reduce(torch.add, scores) / len(scores)
        return mean

    names: dict[str, Any] = {
        "forward": forward,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    made = copy.copy(model)
    made.__class__ = type(kind.__name__, (kind,), names)
    return made
