"""The candidate on one of several processes: built, run and noted in a cell, and asked about what was noted."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE
from verifier.errors import VerifierError
from verifier.forms.loading import is_file
from verifier.graph.chance import random_state, set_random_state
from verifier.graph.tensors import tensors_in
from verifier.lockstep import give_back, meet
from verifier.models.casting import arguments, running
from verifier.models.specs import load
from verifier.ranks import ranks
from verifier.sharded.aligning import wide
from verifier.sharded.asking import impatient, waiting
from verifier.sharded.states import put_back, watched
from verifier.sharded.watching import Key, Pass, Returned, local, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.cells import Cell
    from verifier.graph.chance import RandomState
    from verifier.inputs import Inputs
    from verifier.models.specs import Source


@dataclass(frozen=True)
class Held:
    """What a process has noted at one key, without its numbers."""

    key: Key
    op: str
    shape: tuple[int, ...]
    shard: str


@dataclass(frozen=True)
class Noted:
    """What a process tells of its pass: keys with shapes, classes of modules, calls, outputs, notes.

    `written` names the buffers that it changed; `apart` is how far its outputs are from those of a pass that nothing
    watched (NRMSE).
    """

    held: tuple[Held, ...]
    kinds: dict[str, tuple[str, ...]]
    calls: dict[str, int]
    outputs: int
    apart: float
    notes: tuple[str, ...]
    written: frozenset[str] = frozenset()
    settings: Mapping[str, dict[str, object]] = field(default_factory=dict)


@dataclass
class Candidate:
    """This process's part of the candidate, a specification or a module that is run as it is."""

    given: nn.Module | str
    inputs: Inputs
    seed: int
    notes: tuple[str, ...] = ()
    _built: tuple[nn.Module, Cell] = field(init=False)
    _chance: RandomState | None = None
    _pass: Pass = field(default_factory=Pass)
    _state: dict[str, Tensor] = field(default_factory=dict)

    def answers(self) -> dict[str, Any]:
        """What a process can be asked, by name."""
        return {
            "build": self.build,
            "run": self.run,
            "tensor": self.tensor,
            "given": self.given_there,
            "output": self.output,
            "inside": self.inside,
            "state": self.state,
            "parameter": self.parameter,
        }

    def build(self, cell: Cell, wide: bool) -> str:
        """Build it for a cell; empty, or why it cannot be had in float64, which only `wide` allows for."""
        self.__dict__.pop("_built", None)  # so that there is one at a time
        if isinstance(self.given, str):
            source = self.loaded(self.given, cell)
            model, self.notes, self._chance = source.model, source.notes, source.chance
        else:
            model, self._chance = self.given, random_state()
        impatient()
        self._state = {
            plain(name): local(tensor.detach())
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        if isinstance(self.given, str) and cell.torch_dtype is not None:
            try:
                model = model.to(cell.torch_dtype) if _other(model, cell.torch_dtype) else model
            except Exception as error:
                check_unanswered(error)
                if not wide:
                    raise
                return f"{type(error).__name__}: {error}"
        elif wide:
            return "it was given as a module, and cannot be copied"
        self._built = model, cell
        return ""

    def loaded(self, given: str, cell: Cell) -> Source:  # noqa: ARG002 - what is trained asks for it
        """What a specification leads to; it will run in a cell."""
        return load(given, seed=self.seed)

    def run(self, instead: Mapping[Key, list[Tensor | None]]) -> Noted:
        """Run it bare and watched, with some tensors overwritten by what this rank is to have there.

        Raises:
            ModelError: It failed, or waited for other ranks longer than it may.
        """
        mine = {key: each[ranks().rank] for key, each in instead.items()}
        written = {
            key: tensor.to(self._built[1].torch_dtype) for key, tensor in mine.items() if tensor is not None
        }
        apart, self._pass = 0.0, Pass()  # so that there is one at a time
        give_back()
        if not instead:
            bare = [local(t).detach().clone() for t in tensors_in(self._called(None))]
            give_back()
        self._pass = self._called(written)
        give_back()
        if not instead:
            apart = _apart(bare, self._pass.outputs)
        held = tuple(Held(e.key, e.op, tuple(e.value.shape), e.shard) for e in self._pass.events.values())
        outputs, calls = len(self._pass.outputs), dict(self._pass.calls)
        changed, settings = frozenset(self._pass.written), self._pass.settings
        return Noted(held, self._pass.kinds, calls, outputs, apart, self.notes, changed, settings)

    def _called(self, instead: Mapping[Key, Tensor] | None) -> Any:
        model, cell = self._built
        args, kwargs = arguments(self.inputs, cell)
        before = random_state()
        where = Pass()
        try:
            if self._chance is not None:
                set_random_state(self._chance)
            with running(cell):
                if instead is None:
                    with put_back(model), torch.no_grad():
                        return model(*args, **kwargs)
                return watched(model, args, kwargs, instead=instead, noting=where)
        except VerifierError:
            raise
        except BaseException as error:
            check_unanswered(error)
            raise waiting(error, where.last, wide=cell == ORACLE) from error
        finally:
            set_random_state(before)

    def tensor(self, keys: list[list[Key]]) -> list[Tensor]:
        """What this rank has at the keys that are named for it."""
        return [self._pass.events[key].value for key in keys[ranks().rank]]

    def given_there(self, keys: list[list[Key]]) -> list[Tensor | None]:
        """What this rank's modules were given first, where they returned what is at the keys."""
        return [self._pass.events[key].given for key in keys[ranks().rank]]

    def output(self, position: int) -> Returned:
        """What this rank's model returned there, if it did."""
        found = self._pass
        if position >= len(found.outputs):
            return Returned()
        return Returned(found.declared[position], found.outputs[position], found.made_by(position))

    def inside(self, scope: list[str | None]) -> list[tuple[Key, Tensor]]:
        """What calls in a module made on this rank."""
        name = scope[ranks().rank]
        return [(key, e.value) for key, e in self._pass.events.items() if key.op and key.scope == name]

    def state(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of this rank's parameters and buffers, as far as they are its own."""
        return {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def parameter(self, names: list[str | None]) -> Tensor | None:
        """This rank's part of a parameter, by the name that it has here."""
        name = names[ranks().rank]
        return None if name is None else self._state[name].detach().cpu()


def is_spread(candidate: object, seed: int) -> bool:
    """Whether a module's parameters, or those of a specification's, are spread over processes, as DTensor says it."""
    if isinstance(candidate, str) and not is_file(candidate):
        candidate = load(candidate, seed=seed).model
    if not isinstance(candidate, nn.Module):
        return False
    # It takes seconds to import, and who has such tensors has imported it.
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and any(isinstance(each, known.DTensor) for each in candidate.parameters())


def _apart(bare: Sequence[Tensor], watched_: Sequence[Tensor]) -> float:
    """How far outputs are from each other at most; infinitely if they are other ones. Fused paths round otherwise."""
    if len(bare) != len(watched_):
        return math.inf
    met = meet([wide(each) for each in bare], [wide(each) for each in watched_])
    found = [each.error for each in met]
    if any(each is None or each.nonfinite_mismatched for each in found):
        return math.inf
    return max((e.nrmse for e in found if e is not None and e.max_abs), default=0.0)


def _other(model: nn.Module, dtype: torch.dtype) -> bool:
    return any(t.is_floating_point() and t.dtype != dtype for t in (*model.parameters(), *model.buffers()))
