"""Running two aligned models in one cell, and the baseline's own rounding noise there."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from verifier.border.accounts import account
from verifier.border.programs import translating
from verifier.cells import Cell
from verifier.errors import ModelError, OutOfMemoryError
from verifier.graph.chance import same_chance
from verifier.graph.returned import words_apart
from verifier.graph.tensors import same_memory, tensors_in
from verifier.inputs import Inputs
from verifier.lockstep import Comparing, Lane, Meeting, Replay, meet, queue, replayable
from verifier.models.copying import copy_with, unshared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from verifier.align import Alignment, Recipe, State
    from verifier.lockstep import Passes, Queued
    from verifier.weights import Masters

ORACLE = Cell("cpu", "float64")


@dataclass(frozen=True)
class Subject:
    """Two models that are compared: the modules, their pairs, and the tensors they compute with."""

    baseline: nn.Module
    candidate: nn.Module
    alignment: Alignment
    masters: Masters

    def with_recipes(self, recipes: Iterable[Mapping[str, Recipe]]) -> Subject:
        """The same models, with some of the candidate's tensors made otherwise from the baseline's."""
        return replace(self, masters=self.masters.remade(recipes))

    @cached_property
    def states(self) -> tuple[State, ...]:
        """What either model writes while it runs; integers only count the steps."""
        return tuple(
            state
            for state in self.alignment.states(self.masters.whole)
            if self.masters.baseline[state.baseline].is_floating_point()
        )


@dataclass(frozen=True)
class Measured:
    """What a cell's passes measured: meetings at each pair, each shared output and each state, free and forced.

    `inputs` are there where the candidate was given its own.

    `words` says how what the two return differs that is no number.

    `values` holds both models' output tensors; they are read by `verifier.metrics.agreement` and then dropped.
    """

    total: tuple[Meeting, ...]
    intrinsic: tuple[Meeting, ...] | None
    outputs: tuple[Meeting, ...]
    outputs_forced: tuple[Meeting, ...] | None
    states: tuple[Meeting, ...]
    states_forced: tuple[Meeting, ...] | None
    inputs: tuple[Meeting, ...]
    values: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    words: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether nothing differs that was measured without forcing."""
        return all(meeting.identical for meeting in (*self.total, *self.outputs, *self.states, *self.inputs))

    def with_intrinsic(self, forced: Measured) -> Measured:
        """These free measurements beside forced ones."""
        return replace(
            self,
            intrinsic=forced.intrinsic,
            outputs_forced=forced.outputs_forced,
            states_forced=forced.states_forced,
        )

    def merge(self, other: Measured) -> Measured:
        """These measurements and those of a further batch."""

        def both(a: tuple[Meeting, ...], b: tuple[Meeting, ...]) -> tuple[Meeting, ...]:
            return tuple(one.merge(two) for one, two in zip(a, b, strict=True))

        return Measured(
            total=both(self.total, other.total),
            intrinsic=None if self.intrinsic is None else both(self.intrinsic, other.intrinsic or ()),
            outputs=both(self.outputs, other.outputs),
            outputs_forced=(
                None if self.outputs_forced is None else both(self.outputs_forced, other.outputs_forced or ())
            ),
            states=both(self.states, other.states),
            states_forced=(
                None if self.states_forced is None else both(self.states_forced, other.states_forced or ())
            ),
            inputs=both(self.inputs, other.inputs),
            values=(
                _joined(self.values[0], other.values[0]),
                _joined(self.values[1], other.values[1]),
            ),
            words=(*self.words, *other.words),
        )


@dataclass
class Caster:
    """Master tensors in other dtypes and on other devices, each converted once and shared."""

    _done: dict[tuple[int, Cell], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def state(self, masters: Mapping[str, Tensor], cell: Cell) -> dict[str, Tensor]:
        """All of `masters` as they are in `cell`."""
        return {name: self._one(tensor, cell) for name, tensor in masters.items()}

    def _one(self, tensor: Tensor, cell: Cell) -> Tensor:
        key = (id(tensor), cell)
        if key not in self._done:
            self._done[key] = (tensor, cast(tensor, cell))  # the master is kept so that its id stays taken
        return self._done[key][1]


def cast(tensor: Tensor, cell: Cell) -> Tensor:
    """`tensor` on the cell's device and as it lies there, in the cell's dtype if it is floating point.

    A complex tensor gets the dtype's complex counterpart.
    """
    if tensor.is_complex():
        wide = cell.torch_dtype is torch.float64
        return tensor.to(cell.device, torch.complex128 if wide else torch.complex64)
    there = tensor.to(cell.device, cell.torch_dtype if tensor.is_floating_point() else tensor.dtype)
    # As `Module.to(memory_format=...)` has it: tensors of four dimensions. Otherwise each lies as it was given.
    last = cell.memory_format == "channels_last" and there.dim() == 4
    return there.contiguous(memory_format=torch.channels_last) if last else there


def arguments(
    inputs: Inputs, cell: Cell, *, overwritten: bool = True
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs as they are in `cell`; copies, if the model that gets them overwrites its inputs."""

    def own(tensor: Tensor) -> Tensor:
        there = cast(tensor.detach(), cell)
        return there.clone() if overwritten and same_memory(there) == same_memory(tensor) else there

    fresh = pytree.tree_map_only(Tensor, own, (inputs.args, inputs.kwargs))
    return fresh[0], fresh[1]


def sample(inputs: Inputs, count: int, start: int = 0) -> Inputs:
    """`count` samples of every tensor that shares the first tensor's batch dimension, from `start` on."""
    tensors = [leaf for leaf in pytree.tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor)]
    size = tensors[0].shape[0] if tensors[0].dim() else 0

    def head(tensor: Tensor) -> Tensor:
        return tensor[start : start + count] if tensor.dim() and tensor.shape[0] == size else tensor

    args, kwargs = pytree.tree_map_only(Tensor, head, (inputs.args, inputs.kwargs))
    other = None if inputs.other is None else sample(inputs.other, count, start)
    return Inputs(args, kwargs, info=inputs.info, other=other)


def batch_size(inputs: Inputs) -> int:
    """Size of the first tensor's first dimension; 1 for a scalar."""
    first = next(
        leaf for leaf in pytree.tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor)
    )
    return int(first.shape[0]) if first.dim() else 1


def reversed_samples(inputs: Inputs) -> Inputs:
    """The same samples from the last to the first, in every tensor that has as many of them as the first one."""
    samples = batch_size(inputs)

    def turned(tensor: Tensor) -> Tensor:
        return tensor.flip(0) if tensor.dim() and tensor.shape[0] == samples else tensor

    args, kwargs = pytree.tree_map_only(Tensor, turned, (inputs.args, inputs.kwargs))
    return replace(inputs, args=args, kwargs=kwargs)


def batches(inputs: Inputs, size: int | None) -> list[Inputs]:
    """The inputs in batches of `size` samples; all in one where `size` is None or they have no batch dimension."""
    count = batch_size(inputs)
    if size is None or size >= count:
        return [inputs]
    return [sample(inputs, size, start) for start in range(0, count, size)]


def measure_cell(
    subject: Subject,
    cell: Cell,
    inputs: Sequence[Inputs],
    caster: Caster,
    *,
    free: bool = True,
    forced: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Measured:
    """Baseline against candidate in one cell over all batches: free passes, forced ones, or both side by side."""
    kinds = [force for force, wanted in ((False, free), (True, forced)) if wanted]
    try:
        return _over_batches(subject, cell, inputs, caster, kinds, progress)
    except torch.OutOfMemoryError as error:  # elsewhere than in a model: in moving inputs, in comparing
        raise OutOfMemoryError(f"out of memory in {cell.name}. Use a smaller --batch-size.") from error


def _over_batches(
    subject: Subject,
    cell: Cell,
    inputs: Sequence[Inputs],
    caster: Caster,
    kinds: Sequence[bool],
    progress: Callable[[], None],
) -> Measured:
    measured: Measured | None = None
    queued: list[tuple[Queued, Inputs, int]] = []
    replay: Replay | None = None
    offset = 0
    for number, batch in enumerate(inputs):
        # The first batch runs live in any case: it loads kernels and shows that the models keep to their graphs.
        if number == 1 and _worthwhile(subject, cell, inputs[number:]):
            replay = recorded(subject, cell, batch, caster, kinds)
        tensors = [] if replay is None else _tensors(batch, cell)
        if replay is not None and not replay.fits(tensors):
            measured = _merged(measured, queued, kinds, cell)
            queued.clear()
            replay = None  # and with it the memory it runs in
        if replay is not None:
            queued.append((replay(tensors, offset), batch, offset))
            for _ in subject.alignment.pairs:
                progress()
        else:
            queued.append((_queue(subject, cell, batch, caster, kinds, progress, offset), batch, offset))
        if replay is None:  # else what a batch leaves on the device is small, and fetching it would wait
            measured = _merged(measured, queued, kinds, cell)
            queued.clear()
        offset += batch_size(batch)
    measured = _merged(measured, queued, kinds, cell)
    assert measured is not None  # noqa: S101 - there is always a batch
    return measured


# A recording costs as much of Python's time as a batch does, so it saves some from the second batch on.
_REPLAYED = 2


def _worthwhile(subject: Subject, cell: Cell, left: Sequence[Inputs]) -> bool:
    graphs = subject.alignment.baseline, subject.alignment.candidate
    plain = cell.is_cuda and left[0].other is None
    return (
        plain
        and sum(batch_size(each) == batch_size(left[0]) for each in left) >= _REPLAYED
        and replayable(graphs)
    )


def recorded(
    subject: Subject, cell: Cell, inputs: Inputs, caster: Caster, kinds: Sequence[bool]
) -> Replay | None:
    """The passes over a batch like this one as one launch; None where something in the models does not allow that."""
    try:
        args, kwargs = arguments(inputs, cell)
        there = replace(inputs, args=args, kwargs=kwargs)
        tensors = _tensors(there, cell)
        return Replay(lambda: _queue(subject, cell, there, caster, kinds, lambda: None, 0), tensors)
    except Exception:  # each obstacle is an error of its own; the batch runs as the first did
        return None


def _merged(
    measured: Measured | None, queued: Sequence[tuple[Queued, Inputs, int]], kinds: Sequence[bool], cell: Cell
) -> Measured | None:
    for each, inputs, offset in queued:
        found = _measured(each.fetch(), kinds, inputs, cell, offset)
        measured = found if measured is None else measured.merge(found)
    return measured


def _queue(
    subject: Subject,
    cell: Cell,
    inputs: Inputs,
    caster: Caster,
    kinds: Sequence[bool],
    progress: Callable[[], None],
    offset: int,
) -> Queued:
    """Both models over one batch; for each of `kinds` a lane of the candidate, forced or not."""
    pairs = subject.alignment.pairs
    lanes = [
        open_lane(subject, "baseline", cell, inputs, caster),
        *(
            open_lane(subject, "candidate", cell, inputs if force else inputs.other or inputs, caster)
            for force in kinds
        ),
    ]
    sites = [[pair.baseline for pair in pairs], *([pair.candidate for pair in pairs] for _ in kinds)]
    return queue(
        lanes,
        sites,
        [Comparing(0, k, force) for k, force in enumerate(kinds, 1)],
        progress,
        offset,
        states=[
            [state.baseline for state in subject.states],
            *([state.candidate for state in subject.states] for _ in kinds),
        ],
        layouts=subject.alignment.laid_out,
    )


def _measured(passes: Passes, kinds: Sequence[bool], inputs: Inputs, cell: Cell, offset: int) -> Measured:
    found = dict(zip(kinds, zip(passes.meetings, passes.outputs, passes.states, strict=True), strict=True))
    main = found[kinds[0]]
    forced = found.get(True, (None, None, None))
    return Measured(
        total=main[0],
        intrinsic=forced[0],
        outputs=main[1],
        outputs_forced=forced[1],
        states=main[2],
        states_forced=forced[2],
        inputs=() if inputs.other is None else compare_inputs(inputs, inputs.other, cell, offset),
        values=(passes.values[0], passes.values[1]),
        words=tuple(said for said, may_say_nothing in words_apart(*passes.words[:2]) if not may_say_nothing),
    )


def compare_inputs(inputs: Inputs, other: Inputs, cell: Cell, offset: int = 0) -> tuple[Meeting, ...]:
    """The two models' inputs against each other, tensor by tensor."""
    return meet(_tensors(inputs, cell), _tensors(other, cell), offset)


def _tensors(inputs: Inputs, cell: Cell) -> list[Tensor]:
    return list(tensors_in(arguments(inputs, cell, overwritten=False)))


def _joined(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(
        torch.cat([one, two]) if one.dim() and one.shape[1:] == two.shape[1:] else one
        for one, two in zip(a, b, strict=True)
    )


def copied(subject: Subject, side: str, cell: Cell, caster: Caster, *, exactly: bool = False) -> nn.Module:
    """A copy of the `baseline` or the `candidate` with the tensors it computes with in a cell.

    `exactly` makes them float64 on the CPU, with the values they have in the cell.
    """
    model, masters, graph = (
        (subject.baseline, subject.masters.baseline, subject.alignment.baseline)
        if side == "baseline"
        else (subject.candidate, subject.masters.candidate, subject.alignment.candidate)
    )
    state = caster.state(masters, cell)
    where = ORACLE if exactly else cell
    if exactly:
        state = {name: cast(tensor, ORACLE) for name, tensor in state.items()}
    return copy_with(
        model,
        state,
        lambda tensor: cast(cast(tensor, cell), where),
        role=side,
        written=graph.writes_state,
    )


def open_lane(
    subject: Subject,
    side: str,
    cell: Cell,
    inputs: Inputs,
    caster: Caster,
    keep: Collection[int] = (),
    stops: Collection[int] | None = None,
    exactly: bool = False,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    called: bool = False,
) -> Lane:
    """A lane of the `baseline` or the `candidate` in a cell, which keeps the calls at the positions in `keep`.

    It stops at all paired sites, or at those of `stops`. `exactly` computes in float64 on the CPU with what the cell
    makes of weights and inputs: what a model in the cell would give if its arithmetic made no error. `around` makes
    what the model runs in besides. `called` says that the model has been called once before, on the same inputs.
    """
    graph, own = (subject.alignment.baseline, 0) if side == "baseline" else (subject.alignment.candidate, 1)
    where = ORACLE if exactly else cell
    copy = copied(subject, side, cell, caster, exactly=exactly)

    def given() -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = arguments(inputs, cell, overwritten=graph.writes_inputs)
        if exactly:
            args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: cast(tensor, where), (args, kwargs))
        return args, kwargs

    if called:
        args, kwargs = given()
        failing = partial(_failed_before, side)
        with translating(failing), torch.no_grad(), where.casting(), same_chance():
            unshared(copy)(*args, **kwargs)
    if stops is None:
        stops = [pair[own] for pair in subject.alignment.pairs]
    return Lane(side, copy, graph, *given(), stops, keep, _both(around, where.casting))


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
