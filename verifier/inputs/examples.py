"""An example of what a model takes, for whoever gave it nothing and learns that pictures will not do."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING

import torch
from torch import nn

from verifier.inputs.given import Inputs, tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_SHAPE = (2, 16)  # sequences and token ids of each: shorter than any model's positions


def token_ids(model: nn.Module, takes: Callable[[Inputs], bool]) -> str:
    """Python that makes token ids for a model: `{'input_ids': torch.randint(101, (2, 16))}`.

    Args:
        model: The model, which is only looked at.
        takes: Whether it runs on some inputs. What is returned was tried.

    Returns:
        An expression; empty where the model has no embedding, or takes none of the examples that were tried.
    """
    for vocabulary in _vocabularies(model):
        ids = torch.arange(_SHAPE[0] * _SHAPE[1]).reshape(_SHAPE) % vocabulary
        drawn = f"torch.randint({vocabulary}, {_SHAPE})"
        for names in _names(model):
            if takes(tensors(dict.fromkeys(names, ids) if names else ids)):
                return f"dict({', '.join(f'{name}={drawn}' for name in names)})" if names else drawn
    return ""


def _vocabularies(model: nn.Module) -> Iterator[int]:
    """Numbers of tokens that a model may know: the first table's, mostly, and in any case the smallest's."""
    sizes = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
    yield from dict.fromkeys([*sizes[:1], *([min(sizes)] if sizes else [])])


def _names(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """Under which names it may want them: those it has, else none."""
    known: Collection[str] = ()
    with contextlib.suppress(TypeError, ValueError):  # some callables do not tell
        known = inspect.signature(model.forward).parameters.keys()
    if "input_ids" in known:
        yield ("input_ids",)
        if "decoder_input_ids" in known:
            yield "input_ids", "decoder_input_ids"
    else:
        yield ()
