"""Two models in one cell, ready to be run."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.bench.subject import SIDES, Subject
from verifier.border.error_texts import account
from verifier.border.programs import translating
from verifier.cells import ORACLE
from verifier.errors import ModelError
from verifier.graph.chance import same_chance
from verifier.graph.tensors import mapped
from verifier.lockstep import Lane
from verifier.models.casting import Caster, arguments, cast, casting, made_in, running
from verifier.models.copying import copy_with, unshared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.cells import Cell
    from verifier.graph import Graph
    from verifier.inputs import Inputs


@dataclass(frozen=True)
class Bench:
    """Two models in one cell, with what they are run on.

    Attributes:
        subject: The two models.
        inputs: What they are run on, a few samples or many.
        cell: The setting they run in.
        caster: Makes the tensors they compute with.
        progress: Told of every pair at which they have met.
    """

    subject: Subject
    inputs: Inputs
    cell: Cell = ORACLE
    caster: Caster = field(default_factory=Caster)
    progress: Callable[[], None] = lambda: None

    def at(self, **changes: Any) -> Bench:
        """The same bench with another cell, other inputs, ..."""
        return replace(self, **changes)

    @property
    def alignment(self) -> Alignment:
        """Which sites of the two belong together."""
        return self.subject.alignment

    def graph(self, side: str) -> Graph:
        """The graph of the `baseline` or the `candidate`."""
        return self.alignment.baseline if side == SIDES[0] else self.alignment.candidate

    def masters(self, side: str) -> Mapping[str, Tensor]:
        """What one side computes with, before it is cast."""
        return self.subject.masters.baseline if side == SIDES[0] else self.subject.masters.candidate

    def given(self, side: str) -> Inputs:
        """What one side is run on."""
        return self.inputs if side == SIDES[0] else self.inputs.other or self.inputs

    def copied(self, side: str, *, exactly: bool = False) -> nn.Module:
        """A copy of one model with the tensors it computes with.

        `exactly` makes them float64 on the CPU, with the values they have in the cell.
        """
        state = self.caster.state(self.masters(side), self.cell)
        where = ORACLE if exactly else self.cell
        if exactly:
            state = {name: cast(tensor, ORACLE) for name, tensor in state.items()}
        if self.cell == ORACLE:
            state |= self.subject.exact.get(side, {})
        return copy_with(
            self.subject.baseline if side == SIDES[0] else self.subject.candidate,
            state,
            lambda tensor: cast(cast(tensor, self.cell), where),
            role=side,
            written=self.graph(side).writes_state,
        )

    def lane(
        self,
        side: str,
        *,
        inputs: Inputs | None = None,
        keep: Collection[int] = (),
        stops: Collection[int] | None = None,
        exactly: bool = False,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
        called: bool = False,
    ) -> Lane:
        """A lane of one side, which keeps the calls at the positions in `keep`.

        It runs on the bench's inputs, the candidate on the baseline's, unless it is given others. It stops at all
        paired sites, or at those of `stops`. `exactly` computes in float64 on the CPU with what the cell makes of
        weights and inputs: what a model in the cell would give if its arithmetic made no error. `around` makes
        what the model runs in besides. `called` says that the model has been called once before, on the same inputs.
        """
        graph = self.graph(side)
        where = ORACLE if exactly else self.cell
        copy = self.copied(side, exactly=exactly)

        def given() -> tuple[tuple[Any, ...], dict[str, Any]]:
            args, kwargs = arguments(inputs or self.inputs, self.cell, overwritten=graph.writes_inputs)
            if exactly:
                args, kwargs = mapped((args, kwargs), lambda tensor: cast(tensor, where))
            return args, kwargs

        if called:
            args, kwargs = given()
            with translating(partial(_failed_before, side)), torch.no_grad(), running(where), same_chance():
                unshared(copy)(*args, **kwargs)
        if stops is None:
            stops = self.paired_sites(side)
        inside = _both(around, partial(casting, where))
        return Lane(side, copy, graph, *given(), stops, keep, inside, made_in(where))

    def lanes(self, keep: Sequence[int] = (), keep_candidate: Sequence[int] = ()) -> tuple[Lane, Lane]:
        """Both models on the same inputs, keeping some calls of each."""
        return self.lane(SIDES[0], keep=keep), self.lane(SIDES[1], keep=keep_candidate)

    def paired_sites(self, side: str) -> list[int]:
        """The paired sites of one side, in the order of the pairs."""
        return [pair[SIDES.index(side)] for pair in self.alignment.pairs]

    def written(self, side: str) -> list[str]:
        """What one side writes while it runs, in the order of the subject's states."""
        return [getattr(state, side) for state in self.subject.states]


def _failed_before(side: str, error: BaseException) -> ModelError:
    return ModelError(f"the {side} fails when nothing watches it: {account(error)}")


def _both(
    outer: Callable[[], AbstractContextManager[object]], inner: Callable[[], AbstractContextManager[object]]
) -> Callable[[], AbstractContextManager[object]]:
    def entered() -> AbstractContextManager[object]:
        with ExitStack() as stack:
            stack.enter_context(outer())
            stack.enter_context(inner())
            return stack.pop_all()

    return inner if outer is nullcontext else entered
