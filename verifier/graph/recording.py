"""Recording the graph of one forward pass."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from verifier.errors import ModelError
from verifier.graph.chance import random_state, set_random_state
from verifier.graph.conditions import Conditions
from verifier.graph.instrument import Instrument
from verifier.graph.interpreted import Interpreter
from verifier.graph.lines import Lines
from verifier.graph.operators import (
    CONSTANTS,
    FILLS,
    UNWRITTEN,
    bind,
    casts,
    readable,
    spelt_out,
    writes_in_place,
)
from verifier.graph.origins import Origins
from verifier.graph.returned import Returned
from verifier.graph.sites import UNTRACED, Call, Graph, Site, TensorUse
from verifier.graph.tensors import same_memory, shape_of, tensors_given, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    from verifier.records import Source


class EndedEarly(Exception):  # noqa: N818 - nothing went wrong
    """A pass came to an operator from which on it was not to be recorded; the model ran to its end all the same."""


def record(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    until: Callable[[str], bool] = lambda _: False,
) -> Graph:
    """Run `model` once and return the graph of what it did.

    The model gets hooks and may write its buffers and inputs, so it must be a copy made for this purpose
    (`verifier.models.copying.copy_with`), and so must the inputs. Gradients are off.

    Args:
        model: The module to run.
        args: Positional inputs, tensors in any nesting.
        kwargs: Keyword inputs.
        until: Whether nothing is to be recorded any more from an operator on, by its name.

    Raises:
        EndedEarly: The model came to such an operator.
        ModelError: It returns something without values; whatever the model itself raises passes through.
    """
    inputs = tensors_given((args, kwargs))
    recorder = Recorder(model, inputs, record.__code__, until)
    before = random_state()
    try:
        with torch.no_grad(), recorder:
            outputs = model(*args, **kwargs)
    finally:
        # What the recorder holds must not be copied along with the model: torch frees a copied StorageWeakRef twice.
        recorder.detach()
        after = random_state()
        set_random_state(before)
    if recorder.ended:
        raise EndedEarly
    draws = not before.same(after)
    returned = Returned.of(outputs)
    if not recorder.bare_shapes and any(tensor.is_meta for _, tensor in returned.tensors):
        raise ModelError(
            f"the model {type(model).__name__} returns a tensor on the meta device, which has no values to compare."
        )
    return recorder.graph(returned, draws=draws)


@dataclass(slots=True)
class _Draft:
    """A site before its final name is known."""

    base: str
    op: str
    scope: str
    output: int
    tensor_shape: tuple[int, ...]
    dtype: str
    inputs: tuple[int, ...]
    operands: tuple[int | None, ...]
    tensors: tuple[TensorUse, ...]
    attributes: dict[str, object]
    inplace: bool
    identity: bool
    aliases_state: bool
    call: int
    source: Source | None


class Recorder(Instrument):
    """Notes every call of one forward pass; frames beyond the code `outermost` are not the model's."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        outermost: CodeType,
        until: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.ended = False
        self._until = until
        self._state: dict[int, str] = {}
        self._state_memory: set[int | None] = set()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._versions: dict[str, tuple[Tensor, int]] = {}
        self._interned: dict[tuple[tuple[str, object], ...], dict[str, object]] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._state[id(tensor)] = name
            self._state_memory.add(same_memory(tensor))
            self._shapes[name] = tuple(tensor.shape)
            self._versions[name] = (tensor, _version(tensor))
        self._state_memory.discard(None)
        # Batch norm writes its running statistics without counting that as a new version of them.
        self._buffers = {
            name: (buffer, buffer.clone()) for name, buffer in model.named_buffers() if not buffer.is_meta
        }
        self._lines = Lines(model, outermost)
        super().__init__(model, inputs)
        self._drafts: list[_Draft] = []
        self._calls: list[Call] = []
        self._origins = Origins()
        self._inputs = len(inputs)
        self._read: list[int] = []  # sites whose numbers have left torch for Python
        self._conditions = Conditions.of(model, inputs)
        self._labels = model.output_labels if isinstance(model, Interpreter) else ()
        self._suspendable = True
        self._writes_inputs = False
        self._written: set[int | None] = set()
        self._unwritten: dict[int, list[int]] = {}  # memory that nobody wrote yet: the sites that show it
        # For such memory, the site that wrote it last, or first as a whole.
        self._settled: dict[int, int] = {}
        self._filled: dict[int, int] = {}
        self._input_memory = {same_memory(tensor) for tensor in inputs}
        for k, tensor in enumerate(inputs):
            self._origins.producers[id(tensor)] = (weakref.ref(tensor), -1 - k)
        self._leaves = {name for name, module in model.named_modules() if _is_leaf(module)}

    def on_call(
        self,
        op: str,
        function: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """Draft a site for each tensor."""
        self.ended = self.ended or self._until(op)
        if self.ended:
            return
        first, (scope, leaf) = len(self._drafts), self.origin
        self._suspendable &= _leaves_its_thread_alone(function)
        if function is None:
            named = [*((f"arg{k}", value) for k, value in enumerate(args)), *kwargs.items()]
        else:
            named = bind(function, args, kwargs)
        # A tensor that no operator made was made in Python, of numbers it has read off others.
        producers: list[int] = [] if function is not None else list(dict.fromkeys(self._read))
        operands: list[int | None] = []
        uses: list[TensorUse] = []
        attributes: dict[str, object] = {}
        for role, value in named:
            found = list(tensors_in(value))
            if not found:
                attributes[role] = readable(value)
            for tensor in found:
                name = self._state.get(id(tensor))
                if name is None:
                    origins = self._origins.of(tensor)
                    producers.extend(origins)
                    operands.append(origins[-1] if origins else None)
                else:
                    uses.append(TensorUse(role, name, self._shapes[name]))
        attributes = spelt_out(op, attributes)
        arguments = {id(tensor) for _, value in named for tensor in tensors_in(value)}
        # Hundreds of sites share a handful of settings; one dict for each is enough.
        attributes = self._interned.setdefault(tuple(attributes.items()), attributes)
        # F.dropout in eval mode says inplace=False and returns its argument; F.relu(inplace=True) does too.
        inplace = function is not None and writes_in_place(function, {**dict(named), **kwargs})
        source = self.written or self._lines.running()
        for k, tensor in enumerate(outputs):
            draft = _Draft(
                base=scope if leaf else f"{scope}.{op}" if scope else op,
                op=op,
                scope=scope,
                output=k,
                tensor_shape=shape_of(tensor),
                dtype=str(tensor.dtype).removeprefix("torch."),
                inputs=tuple(producers),
                operands=tuple(operands),
                tensors=tuple(uses),
                attributes=attributes,
                inplace=inplace,
                identity=op in CONSTANTS
                or (not inplace and id(tensor) in arguments and not casts(op, attributes)),
                aliases_state=same_memory(tensor) in self._state_memory,
                call=len(self._calls),
                source=source,
            )
            self._drafts.append(draft)
            self._note_unwritten(tensor, op, first + k, inplace=inplace)
            if not draft.identity:
                self._origins.produced(tensor, first + k)
            elif op in CONSTANTS:
                self._origins.constant(tensor)
            if inplace:
                self._origins.wrote(tensor, first + k)
                self._writes_inputs |= same_memory(tensor) in self._input_memory
                self._written.add(same_memory(tensor))  # writes through .data are not counted as versions
        self._calls.append(Call(scope, op, first, len(outputs)))

    def _note_unwritten(self, tensor: Tensor, op: str, site: int, *, inplace: bool) -> None:
        memory = same_memory(tensor)
        if memory is None:
            return
        if op in UNWRITTEN:
            self._origins.hold(tensor, memory)
            self._unwritten.setdefault(memory, [])
        if memory in self._unwritten:
            self._unwritten[memory].append(site)
            if inplace and op not in UNWRITTEN:
                self._settled[memory] = site
                if (
                    op in FILLS
                    and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
                ):
                    self._filled.setdefault(memory, site)

    def on_read(self, tensor: Tensor) -> None:
        """Remember where a number came from that Python now computes with."""
        self._read.extend(self._origins.of(tensor)[-1:])

    def on_leave(self, name: str, outputs: Sequence[Tensor]) -> None:
        """Give the call that made a leaf module's output the module's own name, as torchvision does."""
        if name not in self._leaves or not self._drafts:
            return
        for tensor in outputs:
            for index in self._origins.of(tensor)[-1:]:
                if index >= 0 and self._drafts[index].scope == name:
                    self._drafts[index].base = name
        last = self._drafts[-1]
        if last.scope == name and last.identity:
            last.base = name

    def graph(self, returned: Returned, *, draws: bool) -> Graph:
        """What was noted, of a pass that has returned."""
        sources = tuple(next(iter(self._origins.of(tensor)[-1:]), UNTRACED) for _, tensor in returned.tensors)
        # What Python computes from numbers it read off tensors cannot be followed: any of them may have led there.
        left = self._read if UNTRACED in sources else []
        live = _ancestors((*sources, *left), self._drafts)
        # What lies in memory before its last write is partly nobody's number, and differs from run to run.
        live -= {
            site
            for memory, sites in self._unwritten.items()
            for site in sites
            if site < self._filled.get(memory, self._settled.get(memory, 0))
        }
        names = _number(self._drafts)
        sites = tuple(
            Site(
                index=index,
                name=names[index],
                op=draft.op,
                scope=draft.scope,
                output=draft.output,
                shape=draft.tensor_shape,
                dtype=draft.dtype,
                inputs=draft.inputs,
                operands=draft.operands,
                tensors=draft.tensors,
                attributes=draft.attributes,
                inplace=draft.inplace,
                identity=draft.identity,
                live=index in live,
                aliases_state=draft.aliases_state,
                source=draft.source,
            )
            for index, draft in enumerate(self._drafts)
        )
        return Graph(
            sites,
            tuple(self._calls),
            sources,
            self._inputs,
            self._shapes,
            suspendable=self._suspendable,
            writes_inputs=self._writes_inputs,
            writes_state=frozenset(
                name
                for name, (tensor, version) in self._versions.items()
                if _version(tensor) != version or same_memory(tensor) in self._written
            )
            | {name for name, (buffer, before) in self._buffers.items() if not torch.equal(buffer, before)},
            draws=draws,
            output_names=returned.names,
            output_labels=self._labels if len(sources) > 1 else (),
            conditions=self._conditions,
        )


def _version(tensor: Tensor) -> int:
    """How often a tensor was written; torch does not count that for inference tensors."""
    return 0 if tensor.is_inference() else tensor._version


def _leaves_its_thread_alone(function: Callable[..., Any] | None) -> bool:
    """Whether a run may be suspended inside this call without its surroundings leaking into another run.

    torch.ops calls pass through a pybind11 frame, and those must be left in the order they were entered; an
    opaque module is seen in a hook, where the mode is not set aside.
    """
    return not (
        function is None
        or isinstance(function, OpOverload | OpOverloadPacket)
        or torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.maybe_current_level() is not None
    )


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module is one of torch.nn's own operators, which torchvision treats as one node."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    forward = type(module).forward
    # What was generated (a traced module's forward) has no module that it comes from.
    return (getattr(forward, "__module__", "") or "").startswith("torch.nn.") and not any(module.children())


def _ancestors(outputs: Sequence[int], drafts: Sequence[_Draft]) -> set[int]:
    found: set[int] = set()
    stack = [index for index in outputs if index >= 0]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack.extend(producer for producer in drafts[index].inputs if producer >= 0)
    return found


def _number(drafts: Sequence[_Draft]) -> list[str]:
    """Unique names: the base, then base_1, base_2, ... by call; further tensors of one call get [k]."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    by_call: dict[tuple[int, str], str] = {}
    names = []
    for draft in drafts:
        key = (draft.call, draft.base)
        if key not in by_call:
            name = draft.base if not seen[draft.base] else f"{draft.base}_{seen[draft.base]}"
            seen[draft.base] += 1
            while name in taken:
                name = f"{draft.base}_{seen[draft.base]}"
                seen[draft.base] += 1
            taken.add(name)
            by_call[key] = name
        names.append(by_call[key] if draft.output == 0 else f"{by_call[key]}[{draft.output}]")
    return names
