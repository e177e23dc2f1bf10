"""One of the two models as it was given: built, recorded, described; it is never run or trained itself."""

from __future__ import annotations

import contextlib
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from verifier.border import heartbeat
from verifier.border.error_texts import account
from verifier.border.programs import by_program
from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE, Cell
from verifier.errors import (
    CannotRunError,
    DeviceError,
    InputError,
    ModelError,
    OutOfMemoryError,
    UsageError,
    VerifierError,
)
from verifier.forms import loading
from verifier.forms.form import Form
from verifier.graph import EndedEarly, Graph, record
from verifier.graph.chance import same_chance
from verifier.graph.operators import converts
from verifier.graph.tensors import dense, same_memory, same_numbers, tensors_given
from verifier.inputs.examples import token_ids
from verifier.models import scales
from verifier.models.casting import arguments, cast, running
from verifier.models.compiled import eager
from verifier.models.copying import copy_with, state_of
from verifier.records import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from verifier.forms.loading import Deployed
    from verifier.inputs import Inputs


# What a model raises on inputs that are not what it expects; anything else says nothing of inputs.
_OF_SHAPES = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def _changed(before: Tensor, after: Tensor) -> bool:
    return not (before.is_meta or same_numbers(dense(before), dense(after)))


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: `given` as it was, and `model`, the program of it, of which nothing is compiled."""

    role: str
    spec: str
    model: nn.Module
    given: nn.Module
    notes: tuple[str, ...] = ()
    flags: tuple[tuple[str, str, str], ...] = ()
    seed: int | None = None  # with which it was built of its specification; None for a module
    form: Form | None = None  # what it is deployed as, of which `model` is the program; None for a module
    setting: Cell | None = None  # the cell that it was put into; None for as it was given

    @classmethod
    def of(
        cls, role: str, model: nn.Module | str | Path | Deployed, seed: int, *, apart: bool = False
    ) -> Side:
        """The `baseline` or the `candidate`, from a module, a form or a specification; `seed` is for what is built.

        Args:
            role: Which of the two.
            model: The module, the form, or what leads to one.
            seed: For what is built.
            apart: Whether what rounding does is told apart from the program, so that the program may go without.

        Raises:
            UsageError: It is no module, leads to none, or has parameters without a shape.
            CannotRunError: Its program goes without the form's rounding, and has to go for the form.
        """
        heartbeat.model(role)
        if isinstance(model, str | Path) and loading.is_file(str(model)):
            return cls._deployed(role, str(model), loading.of_file(str(model)), apart=apart)
        if isinstance(model, str):
            return cls._built(role, model, seed, apart=apart)
        known = loading.of_object(role, model)
        if isinstance(known, Form):
            return cls._deployed(role, known.kind, known, apart=apart)
        if any(map(is_lazy, known.parameters())):
            raise UsageError(
                f"the {role} has lazy parameters without a shape. Run it once on an input before comparing it."
            )
        _see_values(role, state_of(known))
        program, notes = loading.opened(eager(known, role), role)
        kind = type(program)
        form = loading.of_compiled(known, program)
        return cls(role, f"{kind.__module__}.{kind.__qualname__}", program, known, notes, form=form)

    @classmethod
    def _built(cls, role: str, spec: str, seed: int, *, apart: bool) -> Side:
        """Of a specification. Whatever compiles it has no weights of its own: it compiles those that are compared."""
        asked = loading.compiling(spec)
        source = scales.load(spec if asked is None else asked.spec, seed=seed)
        found = cls.of(role, source.model, seed, apart=apart)
        form = found.form
        if asked is not None:
            if form is not None:
                raise UsageError(
                    f"{asked.spec} leads to {form.kind} already: leave out the compile: before it."
                )
            form = loading.compiled(found.model, asked.options)
        given = found.given if form is None else found.model
        return replace(
            found,
            spec=spec,
            given=given,
            notes=(*source.notes, *found.notes),
            flags=source.flags,
            seed=seed,
            form=form,
        )

    @classmethod
    def _deployed(cls, role: str, spec: str, form: Form, *, apart: bool) -> Side:
        if not apart:
            refuse_unwatched(role, form)
        _see_values(role, state_of(form.program))
        return cls(role, spec, form.program, form.program, form.notes, form=form)

    @property
    def recompiled(self) -> bool:
        """Whether it is code that a compiler makes of whatever tensors the model has, and none was given yet."""
        return self.form is not None and self.form.recompiled is not None and self.given is self.model

    def drawn_otherwise(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, built with another seed; none of a module that was given."""
        if self.seed is None:
            return {}
        return state_of(Side.of(self.role, self.spec, self.seed + 1).model)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters and buffers by name."""
        return {name: tuple(tensor.shape) for name, tensor in state_of(self.model).items()}

    def cell(self) -> Cell:
        """The setting the model is in as it was given: a form's own, else the first floating-point parameter's."""
        if self.setting is not None:
            return self.setting
        tensor = next((t for t in state_of(self.model).values() if t.is_floating_point()), torch.empty(0))
        own = self.form.dtypes if self.form is not None else ()
        dtype = next(iter(own)) if len(own) == 1 else str(tensor.dtype).removeprefix("torch.")
        return Cell(str(tensor.device), dtype)

    def held(self, state: Mapping[str, Tensor], cell: Cell) -> Side:
        """The same in a cell, with other tensors than its own where there are any, by name."""
        made = {name: cast(tensor, cell) for name, tensor in {**state_of(self.model), **state}.items()}
        copy = copy_with(self.model, made, lambda tensor: cast(tensor, cell), role=self.role, written=())
        return replace(self, model=copy, given=copy, setting=cell)

    def arguments(self, inputs: Inputs, cell: Cell | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs in a cell or the model's own setting, positional and by keyword."""
        return arguments(inputs, cell or self.cell())

    def trained(self, state: Mapping[str, Tensor], cell: Cell) -> nn.Module:
        """A copy in training mode with tensors of its own, which start as those of `state` are in `cell`."""
        return self._copied(state, cell).train()

    def record(
        self, inputs: Inputs, cell: Cell | None = None, state: Mapping[str, Tensor] | None = None
    ) -> Graph:
        """The model's graph on `inputs`, as it is given or, in a `cell` alone, as it is trained there.

        As it is given it is recorded in float64 if it converts anything: a cast to float32 is nothing in float32.
        With a `state` it is recorded with other tensors than its own, and not trained.

        Raises:
            InputError: The baseline does not take such inputs.
            ModelError: The candidate fails on what the baseline takes.
            DeviceError: Memory ran out.
        """
        heartbeat.stage("recording the first call")
        heartbeat.model(self.role)
        try:
            if cell is not None and state is not None:
                return self._recorded(inputs, cell, state)
            if cell is not None:
                return record(self.trained(state_of(self.model), cell), *arguments(inputs, cell))
            return self._as_given(inputs, state)
        except VerifierError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise DeviceError(
                f"out of memory while recording the {self.role}. Use smaller inputs."
            ) from error
        except BaseException as error:
            check_unanswered(error)
            made = (
                self._unwatched(error) if cell is None and self._runs(inputs) else self.failure(error, inputs)
            )
            raise by_program(made) from error

    def _runs(self, inputs: Inputs) -> bool:
        """Whether a copy that nothing watches takes the inputs."""
        return self._takes(lambda: self._copied(state_of(self.model), self.cell()), inputs)

    def _takes(self, copied: Callable[[], nn.Module], inputs: Inputs) -> bool:
        """Whether a copy that is made first takes the inputs."""
        cell = self.cell()
        args, kwargs = arguments(inputs, cell)
        try:
            with torch.no_grad(), running(cell), same_chance():
                copied()(*args, **kwargs)
        except BaseException as error:
            check_unanswered(error)
            return False
        return True

    def _copied(self, state: Mapping[str, Tensor], cell: Cell) -> nn.Module:
        made = {name: cast(tensor, cell) for name, tensor in state.items()}
        return copy_with(self.model, made, lambda tensor: cast(tensor, cell), role=self.role)

    def _unwatched(self, error: BaseException) -> VerifierError:
        """What to say of a model that ran as it was given, and not as it is compared."""
        return ModelError(
            f"the {self.role} {self.spec} runs as it was given, but the copy of it that is watched does not: "
            f"{account(error)}. This is a limit of the verifier."
        )

    def failure(self, error: BaseException, inputs: Inputs) -> VerifierError:
        """What to say of a model that raised on its first call."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return OutOfMemoryError(f"out of memory in the {self.role}. Use smaller inputs.")
        what = account(error)
        if isinstance(error, RecursionError):
            return ModelError(
                f"the {self.role} {self.spec} calls itself deeper than Python allows, also alone: {what}. "
                "Allow for more with sys.setrecursionlimit, if it ends at all."
            )
        if self.given is not self.model and self._takes(lambda: deepcopy(self.given), inputs):
            return self._unwatched(error)
        if self.role != "baseline":
            return ModelError(f"the candidate {self.spec} fails on inputs that the baseline takes: {what}")
        if not isinstance(error, _OF_SHAPES):
            return ModelError(f"the baseline {self.spec} fails: {what}")
        if inputs.drawn:
            return InputError(f"the baseline {self.spec} {self._instead(what)}")
        shapes = ", ".join(str(shape) for shape in inputs.info.shapes)
        return InputError(f"the baseline {self.spec} does not take inputs of shape {shapes}: {what}")

    def _instead(self, what: str) -> str:
        """What to give a model that fails on random pictures, which nobody has chosen for it."""

        def takes(example: Inputs) -> bool:
            try:
                self._recorded(example, self.cell())
            except BaseException as error:
                check_unanswered(error)
                return False
            return True

        ids = token_ids(self.model, takes)
        if ids:
            return (
                "takes token ids, not the random pictures that it is given without --input. Give it some: "
                f"echo 'import torch; tokens = lambda: {ids}' > tokens.py, and add --input tokens.py:tokens"
            )
        return (
            f"does not take the random pictures that it is given without --input: {what}. Give it what it takes: "
            "--input FILE, or --input inputs.py:make for what a function returns"
        )

    def _as_given(self, inputs: Inputs, state: Mapping[str, Tensor] | None) -> Graph:
        cell = self.cell()
        if cell == ORACLE:
            return self._recorded(inputs, cell, state)
        try:
            return self._recorded(inputs, cell, state, until=converts)
        except EndedEarly:
            with contextlib.suppress(Exception):  # what fails there may still run as it was given
                return self._recorded(inputs, ORACLE, state)
            return self._recorded(inputs, cell, state)

    def _recorded(
        self,
        inputs: Inputs,
        cell: Cell,
        state: Mapping[str, Tensor] | None = None,
        until: Callable[[str], bool] = lambda _: False,
    ) -> Graph:
        state = state or state_of(self.model)
        own = {}
        for name, tensor in state.items():
            made = cast(tensor, cell)
            own[name] = made.clone() if same_memory(made) == same_memory(tensor) else made
        copy = copy_with(self.model, own, lambda tensor: cast(tensor, cell), role=self.role, written=())
        args, kwargs = arguments(inputs, cell)
        held = tensors_given((args, kwargs))  # before the run: a cache holds others afterwards
        with running(cell):
            graph = record(copy, args, kwargs, until)
        # What is written through NumPy, dlpack or storage, torch does not count: only the numbers tell.
        given = tensors_given(arguments(inputs, cell, overwritten=False))
        written = {
            name for name, tensor in state_of(copy).items() if _changed(cast(state[name], cell), tensor)
        }
        return replace(
            graph,
            writes_state=graph.writes_state | written,
            writes_inputs=graph.writes_inputs
            or any(_changed(*each) for each in zip(given, held, strict=True)),
        )

    def info(self, graph: Graph) -> ModelInfo:
        """What the record says of the model, given its graph."""
        return ModelInfo(
            spec=self.spec,
            type=type(self.model).__name__,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            sites=len(graph.comparable),
        )


def refuse_unwatched(role: str, form: Form) -> None:
    """See that the program of a form rounds as the form does.

    Raises:
        CannotRunError: It does not.
    """
    if form.quantised is not None and not form.quantised.watched:
        raise CannotRunError(
            f"the {role} is {form.kind}: this verifier cannot watch what that rounds, and compares it only as the "
            "candidate beside a baseline that is there to be run, and in float. This is a limit of the verifier."
        )


def _see_values(role: str, state: Mapping[str, Tensor]) -> None:
    """See that all parameters and buffers have values, one after the other in memory."""
    for names, what, mend in (
        (
            [n for n, t in state.items() if t.is_meta],
            "on the meta device, without values",
            "Load its weights",
        ),
        (
            [name for name, tensor in state.items() if tensor.layout != torch.strided],
            "in a sparse or other special layout",
            "Make them dense (to_dense)",
        ),
    ):
        if names:
            more = ", ..." if names[3:] else ""
            raise UsageError(
                f"the {role} has {len(names)} parameters or buffers {what} ({', '.join(names[:3])}{more}). "
                f"{mend} before comparing it."
            )
