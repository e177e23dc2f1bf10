"""Programs of torch.export: what was captured, and the same after it was decomposed into core operators."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.border.error_texts import account
from verifier.forms.form import Form, reading
from verifier.graph.tensors import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn
    from torch.export import ExportedProgram

    from verifier.graph import Graph


class Decomposed:
    """The program as `run_decompositions` leaves it, which is what most backends start from."""

    name = "run_decompositions"

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns."""
        own, named = mapped((tuple(args), dict(kwargs)), torch.clone)
        return copy.deepcopy(self._module)(*own, **named)

    def values(
        self,
        args: Sequence[Any],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
        graph: Graph,  # noqa: ARG002
    ) -> Iterator[tuple[int, str, Tensor]]:
        """Nothing: its operators are others."""
        yield from ()


def of(program: ExportedProgram) -> Form:
    """The form of an exported program."""
    program = copy.deepcopy(program)  # whose buffers its modules share
    module: nn.Module = program.module()
    for name, value in list(vars(module).items()):  # numbers that the model's Python has written down
        if isinstance(value, Tensor):
            delattr(module, name)
            module.register_buffer(name, value, persistent=False)
    try:
        decomposed: nn.Module = program.run_decompositions().module()
    except Exception as error:  # torch's own, of which it has many
        note = f"run_decompositions, from which most backends start, fails on the exported program: {account(error)}"
        return Form("an exported program", module, notes=(note,))
    return Form("an exported program", module, (Decomposed(decomposed),))


def read(path: Path) -> Form:
    """The form in a `.pt2` file.

    Raises:
        SourceError: It holds no exported program.
    """
    with reading(str(path), "an exported program (.pt2)"):
        program = torch.export.load(path)
    return of(program)
