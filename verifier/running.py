"""Running two aligned models in one cell, and the baseline's own rounding noise there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from verifier.agreement import agreement
from verifier.align import Alignment
from verifier.copying import copy_with
from verifier.inputs import Inputs
from verifier.judge.cells import Cell
from verifier.lockstep import Comparing, Lane, Meeting, run
from verifier.metrics import compare
from verifier.result import Comparison, OutputAgreement
from verifier.weights import Masters

ORACLE = Cell("cpu", "float64")


@dataclass(frozen=True)
class Subject:
    """Two models that are compared: the modules, their pairs, and the tensors they compute with."""

    baseline: nn.Module
    candidate: nn.Module
    alignment: Alignment
    masters: Masters


@dataclass(frozen=True)
class Measured:
    """What a cell's passes measured: meetings at each pair and each shared output, free and forced."""

    total: tuple[Meeting, ...]
    intrinsic: tuple[Meeting, ...] | None
    outputs: tuple[Meeting, ...]
    outputs_forced: tuple[Meeting, ...] | None
    agreement: OutputAgreement | None


@dataclass(frozen=True)
class Noise:
    """The baseline's own distance (NRMSE) from the float64 oracle, in one cell: per pair, then per output."""

    total: tuple[float, ...]
    intrinsic: tuple[float, ...]


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
    """`tensor` on the cell's device, in the cell's dtype if it is floating point (complex: its counterpart)."""
    if tensor.is_complex():
        wide = cell.torch_dtype is torch.float64
        return tensor.to(cell.device, torch.complex128 if wide else torch.complex64)
    return tensor.to(cell.device, cell.torch_dtype if tensor.is_floating_point() else tensor.dtype)


def arguments(inputs: Inputs, cell: Cell) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Fresh copies of the inputs for one lane, which may overwrite them."""
    fresh = pytree.tree_map_only(Tensor, lambda tensor: cast(tensor, cell).clone(), (inputs.args, inputs.kwargs))
    return fresh[0], fresh[1]


def sample(inputs: Inputs, count: int) -> Inputs:
    """The first `count` samples of every tensor that shares the first tensor's batch dimension."""
    tensors = [leaf for leaf in pytree.tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor)]
    size = tensors[0].shape[0] if tensors[0].dim() else 0

    def head(tensor: Tensor) -> Tensor:
        return tensor[:count] if tensor.dim() and tensor.shape[0] == size else tensor

    args, kwargs = pytree.tree_map_only(Tensor, head, (inputs.args, inputs.kwargs))
    return Inputs(args, kwargs, info=inputs.info)


def batch_size(inputs: Inputs) -> int:
    """Size of the first tensor's first dimension; 1 for a scalar."""
    first = next(leaf for leaf in pytree.tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor))
    return int(first.shape[0]) if first.dim() else 1


def measure_cell(
    subject: Subject,
    cell: Cell,
    inputs: Inputs,
    caster: Caster,
    *,
    free: bool = True,
    forced: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Measured:
    """Baseline against candidate in one cell: a free pass, a forced one, or both side by side."""
    pairs = subject.alignment.pairs
    kinds = [force for force, wanted in ((False, free), (True, forced)) if wanted]
    lanes = [
        _lane(subject, "baseline", cell, inputs, caster),
        *(_lane(subject, "candidate", cell, inputs, caster) for _ in kinds),
    ]
    sites = [[pair.baseline for pair in pairs], *([pair.candidate for pair in pairs] for _ in kinds)]
    passes = run(
        lanes, sites, [Comparing(0, k, force) for k, force in enumerate(kinds, 1)], progress
    )
    found = dict(zip(kinds, zip(passes.meetings, passes.outputs, strict=True), strict=True))
    main = found[kinds[0]]
    return Measured(
        total=main[0],
        intrinsic=found[True][0] if forced else None,
        outputs=main[1],
        outputs_forced=found[True][1] if forced else None,
        agreement=agreement(passes.values[0], passes.values[1]) if free else None,
    )


def measure_noise(
    subject: Subject, cell: Cell, inputs: Inputs, caster: Caster, progress: Callable[[], None] = lambda: None
) -> Noise:
    """How far the baseline in `cell` is from itself in float64, from its own inputs and from exact ones."""
    sites = [pair.baseline for pair in subject.alignment.pairs]
    lanes = [_lane(subject, "baseline", where, inputs, caster) for where in (ORACLE, cell, cell)]
    passes = run(
        lanes, [sites, sites, sites], [Comparing(0, 1), Comparing(0, 2, force=True)], progress
    )
    total, intrinsic = (
        tuple(_distance(meeting) for meeting in (*meetings, *outputs))
        for meetings, outputs in zip(passes.meetings, passes.outputs, strict=True)
    )
    return Noise(total, intrinsic)


def _distance(meeting: Meeting) -> float:
    if meeting.moments is None:
        return float("inf")
    error: Comparison = compare(meeting.moments)
    return 0.0 if error.elements == 0 else error.nrmse


def _lane(subject: Subject, side: str, cell: Cell, inputs: Inputs, caster: Caster) -> Lane:
    model, masters, graph, own = (
        (subject.baseline, subject.masters.baseline, subject.alignment.baseline, 0)
        if side == "baseline"
        else (subject.candidate, subject.masters.candidate, subject.alignment.candidate, 1)
    )
    copy = copy_with(model, caster.state(masters, cell), lambda tensor: cast(tensor, cell), role=side)
    args, kwargs = arguments(inputs, cell)
    stops: Sequence[int] = [pair[own] for pair in subject.alignment.pairs]
    return Lane(side, copy, graph, args, kwargs, stops)
