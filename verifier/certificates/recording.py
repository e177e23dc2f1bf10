"""Recording a model's run: float64 on a few samples, and each cell that is asked for on all of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from verifier.align import Alignment, Pair
from verifier.bench.as_given import as_given, by_sample
from verifier.bench.bench import Bench
from verifier.bench.deployed import refuse_drawn
from verifier.bench.intact import intact
from verifier.bench.noise_floor import noise_floor
from verifier.bench.protocol import silent
from verifier.bench.side import Side
from verifier.bench.subject import Subject
from verifier.border.depth import room_for
from verifier.border.garbage import collecting_seldom
from verifier.border.programs import contained
from verifier.cells import ORACLE, Cell, Request, missing_here
from verifier.certificates import arguments
from verifier.certificates.arrays import Recording
from verifier.certificates.certificate import Certificate
from verifier.certificates.content import Content, RecordingRecord, TensorRecord, WeightRecord, as_record
from verifier.certificates.drawing import drawn, scale_of
from verifier.certificates.file import storable
from verifier.certificates.keeping import Kept, chosen
from verifier.certificates.summary import Summary, summarise
from verifier.environment import describe, preserved, tf32
from verifier.errors import DeviceError, ModelError, UsageError
from verifier.graph.tensors import dense
from verifier.inputs import named, tensors
from verifier.inputs.samples import batch_size, sample
from verifier.lockstep import Comparing, Plan, run
from verifier.models.copying import state_of
from verifier.records import WeightsInfo
from verifier.weights import Masters
from verifier.weights.calibration import branch_ends, calibrated, varies
from verifier.weights.choosing import LEARNT
from verifier.weights.files import published
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from verifier.bench.protocol import Progress
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.lockstep import Meeting, Passes

SAMPLES = 2  # of float64, the first ones
MODES = ("as-is", "calibrated", "imagenet")
_FULL = 1 << 16  # bytes of an output that is kept in full


@contained(exceptions=True)
def record(
    model: nn.Module | str,
    inputs: Any,
    *,
    weights: str = "as-is",
    cells: Sequence[str | Cell] = ("cpu/float32",),
    batch_dim: int | None = 0,
    seed: int = 0,
    full: Sequence[str] = (),
    beside: str | PathLike[str] | None = None,
    recipe: str = "",
    parent: str = "",
    command: str = "",
    progress: Progress = silent,
) -> Certificate:
    """Run a model and keep what a later one is compared with.

    The model is neither run, hooked nor written to: copies are.

    Args:
        model: The trusted model, or a specification that leads to one.
        inputs: A tensor, a tuple of positional arguments, a dict of keyword arguments, or `Inputs`.
        weights: `as-is` (its own), `calibrated` (drawn so that they excite every parameter: what two
            implementations of one architecture are compared with), or `imagenet` (torchvision's published ones).
        cells: The numerics cells to record; float64 always is.
        batch_dim: The dimension of the first input along which samples lie; None where none can be run alone.
        seed: For a model built from a specification and for weights that are drawn.
        full: Names of sites whose tensors are kept in full, of the run in float64: `*` stands for something without a
            dot, `**` for anything. A comparison tells exactly what is beyond them.
        beside: The certificate's file, where it will be saved; they go into a folder beside it, `net.full`, while the
            model runs. What a killed process has left there is not written again.
        recipe: What makes the inputs again, where something does (`verifier.certificates.arguments`).
        parent: SHA-256 of the certificate this one takes the place of.
        command: How it was asked for, for the record.
        progress: Told how far it has come.

    Raises:
        UsageError: Something asked for is wrong.
        CannotRunError: This machine cannot run it, or the model raised.
    """
    if full and beside is None:
        raise UsageError("tensors are kept in full beside a certificate's file: say which (beside).")
    if weights not in MODES:
        raise UsageError(f"a certificate's weights are {', '.join(MODES)}, not {weights!r}.")
    wanted = [Cell.parse(each) if isinstance(each, str) else each for each in cells]
    missing = missing_here([Request(cell) for cell in wanted])
    for cell, why in missing.items():
        raise DeviceError(f"{cell.name} cannot run here: {why}.")
    given = replace(tensors(inputs), batch_dim=batch_dim)
    with undisturbed(), intact({"baseline": model}, given):
        side = Side.of("baseline", model, seed)
        refuse_drawn(weights, side, "Record it with --weights as-is.")
        with room_for(side.model):
            return _recorded(
                side,
                given,
                weights,
                [cell for cell in wanted if cell != ORACLE],
                seed,
                (full, Kept.beside(Path(beside)) if full and beside is not None else None),
                recipe,
                parent,
                command,
                progress,
            )


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Without the modes a caller may be in, and with process-wide state put back."""
    with preserved(), collecting_seldom(), torch.inference_mode(mode=False), torch.no_grad():
        yield


def _recorded(
    side: Side,
    given: Inputs,
    weights: str,
    cells: Sequence[Cell],
    seed: int,
    full: tuple[Sequence[str], Kept | None],
    recipe: str,
    parent: str,
    command: str,
    progress: Progress,
) -> Certificate:
    progress("running the model as it was given", 0, 0)
    shown = as_given(side, [given])
    if shown.apart:
        raise ModelError(
            f"{side.spec}, run as it was given, gives other numbers than a copy of its modules; what it computes "
            "cannot be seen, so that no certificate can speak for it."
        )
    independent = by_sample(side, [given])
    few = sample(given, SAMPLES) if independent else given
    graph = side.record(few)
    own = state_of(side.model)
    scales, masters = _weights(side, own, weights, few, graph, seed)
    bench = alone(side.model, graph, masters, few)
    wide = Taken(bench.paired_sites("baseline"), chosen(graph, full[0]), full[1])
    recordings = list(_recordings(bench, given, few, cells, wide, progress))
    hasher = Hasher()
    info = msgspec.structs.replace(given.info, digest=hasher.of_all(named(given)))
    content = Content(
        model=side.info(graph),
        weights=weights,
        seed=seed,
        tensors=tuple(
            _tensor(name, own[name], masters[name], scales.get(name), side.model, weights, hasher)
            for name in own
        ),
        graph=as_record(graph),
        inputs=arguments.as_record(given, info, recipe),
        recordings=tuple(each.record for each in recordings),
        environment=describe(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        parent=parent,
        by_sample=independent,
    )
    kept = {each.name: masters[each.name] for each in content.tensors if each.stored}
    return Certificate(content, recordings, kept, arguments.kept(given, content.inputs), full=full[1])


def _weights(
    side: Side, own: Mapping[str, Tensor], mode: str, few: Inputs, graph: Graph, seed: int
) -> tuple[dict[str, tuple[float, float]], Mapping[str, Tensor]]:
    """What a run computes with, and how the drawn tensors among it are drawn."""
    if mode == "as-is":
        return {}, own
    if mode == "imagenet":
        return {}, published(side.spec, own)[0]
    parameters = {name for name, _ in side.model.named_parameters()}
    scales = {
        name: scale
        for name, tensor in own.items()
        if name in parameters and (scale := scale_of(tensor)) is not None
    }
    base = {
        name: drawn(name, tensor.shape, tensor.dtype, scales[name], seed).to(tensor.device)
        if name in scales
        else tensor
        for name, tensor in own.items()
    }
    return scales, calibrated(side.model, base, side.arguments(few), seed, quiet=branch_ends(graph))


def _tensor(
    name: str,
    own: Tensor,
    master: Tensor,
    scale: tuple[float, float] | None,
    model: nn.Module,
    mode: str,
    hasher: Hasher,
) -> WeightRecord:
    learnt = name in {each for each, _ in model.named_parameters()} or name.rpartition(".")[2] in LEARNT
    return WeightRecord(
        name=name,
        dtype=str(own.dtype).removeprefix("torch."),
        shape=tuple(own.shape),
        digest=hasher.of_all([("", master)]),
        own=hasher.of_all([("", own)]),
        constant=not varies(own),
        learnt=learnt,
        drawn=scale,
        stored=mode == "calibrated" and learnt and scale is None and storable(master),
    )


def alone(model: nn.Module, graph: Graph, masters: Mapping[str, Tensor], inputs: Inputs) -> Bench:
    """A bench on which one model stands as both sides."""
    alignment = Alignment(graph, graph, tuple(Pair(site.index, site.index) for site in graph.comparable))
    both = Masters(masters, masters, WeightsInfo(mode="as-is"), {})
    return Bench(Subject(model, model, alignment, both), inputs)


def _recordings(
    bench: Bench, given: Inputs, few: Inputs, cells: Sequence[Cell], wide: Taken, progress: Progress
) -> Iterator[Recording]:
    """Each cell on all samples; at last float64, which ran beside the first of them, on a few."""
    sites, states = bench.paired_sites("baseline"), sorted(bench.graph("baseline").writes_state)
    whole = batch_size(few) == batch_size(given)
    noises: list[tuple[float, ...]] = []
    narrowed: tuple[int, ...] = ()
    for cell in cells:
        progress(f"recording {cell.name}", 0, 0)
        here, taken = bench.at(cell=cell), Taken()
        with tf32(allowed=cell.dtype == "tf32"):
            passes = _beside(bench, here, few, [wide if not noises else None, taken if whole else None])
            noises.append(tuple(map(_distance, _met(passes))))
            if not whole:
                _alone(here, given, taken)
            progress(f"noise of {cell.name}", 0, 0)
            floor = noise_floor(here.at(inputs=few))
        narrowed = tuple(sorted(passes.narrowed[0]))
        yield taken.recording(cell.name, batch_size(given), sites, states, noise=noises[-1], floor=floor)
    if not cells:
        progress(f"recording {ORACLE.name}", 0, 0)
        narrowed = tuple(sorted(_alone(bench, few, wide).narrowed[0]))
    yield wide.recording(
        ORACLE.name, batch_size(few), sites, states, noise=noises[0] if noises else (), narrowed=narrowed
    )


def _beside(bench: Bench, here: Bench, few: Inputs, takers: Sequence[Taken | None]) -> Passes:
    """The model in float64 and in a cell, which meet at every site; what is kept of either."""
    sites, states = bench.paired_sites("baseline"), sorted(bench.graph("baseline").writes_state)

    def visit(_: int, found: Sequence[Tensor]) -> None:
        for taker, tensor in zip(takers, found, strict=True):
            if taker is not None:
                taker.take(tensor)

    passes = run(
        [each.lane("baseline", inputs=few) for each in (bench, here)],
        Plan([sites] * 2, [Comparing(0, 1)], [states] * 2),
        visit=visit,
    )
    for lane, taker in enumerate(takers):
        if taker is not None:
            taker.end(passes, lane)
    return passes


def _alone(bench: Bench, inputs: Inputs, taken: Taken) -> Passes:
    """The model in one cell, and what is kept of it."""

    def visit(_: int, found: Sequence[Tensor]) -> None:
        taken.take(found[0])

    passes = run(
        [bench.lane("baseline", inputs=inputs)],
        Plan([bench.paired_sites("baseline")], [], [sorted(bench.graph("baseline").writes_state)]),
        visit=visit,
    )
    taken.end(passes, 0)
    return passes


def _met(passes: Passes) -> list[Meeting]:
    return [*passes.meetings[0], *passes.outputs[0], *passes.states[0]]


def _distance(meeting: Meeting) -> float:
    error = meeting.error
    if error is None or error.nonfinite_mismatched:
        return float("inf")
    return error.nrmse if error.elements and error.max_abs else 0.0


@dataclass
class Taken:
    """What is kept of a run while it goes on: of `sites`, in order, and of some of them in full."""

    sites: Sequence[int] = ()
    full: frozenset[int] = frozenset()
    kept: Kept | None = None
    summaries: list[Summary] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    words: Mapping[str, str] = field(default_factory=dict)
    left: tuple[Tensor, ...] = ()

    def take(self, tensor: Tensor) -> None:
        """Keep the summary of a site's tensor."""
        tensor = dense(tensor)
        found = summarise(tensor)
        if self.kept is not None and (site := self.sites[len(self.summaries)]) in self.full:
            self.kept.keep(site, tensor, found.bits)
        self.summaries.append(found)
        self.shapes.append(tuple(tensor.shape))

    def end(self, passes: Passes, lane: int) -> None:
        """Keep what the run returned and left behind."""
        self.outputs = [dense(tensor).detach().cpu().clone() for tensor in passes.values[lane]]
        self.left = passes.left[lane]
        self.words = passes.words[lane]

    def recording(
        self,
        cell: str,
        samples: int,
        sites: Sequence[int],
        states: Sequence[str],
        *,
        noise: tuple[float, ...],
        narrowed: tuple[int, ...] = (),
        floor: Any = None,
    ) -> Recording:
        """All of it."""
        rest = [summarise(tensor) for tensor in (*self.outputs, *self.left)]
        stored = [t.numel() * t.element_size() <= _FULL and storable(t) for t in self.outputs]
        return Recording(
            RecordingRecord(
                cell=cell,
                samples=samples,
                sites=tuple(sites),
                shapes=tuple(self.shapes),
                outputs=tuple(
                    _described(str(k), tensor, stored=stored[k]) for k, tensor in enumerate(self.outputs)
                ),
                states=tuple(
                    _described(name, tensor) for name, tensor in zip(states, self.left, strict=True)
                ),
                words=dict(self.words),
                noise=noise,
                narrowed=narrowed,
                floor=floor,
            ),
            (*self.summaries, *rest),
            {k: tensor for k, tensor in enumerate(self.outputs) if stored[k]},
        )


def _described(name: str, tensor: Tensor, *, stored: bool = False) -> TensorRecord:
    return TensorRecord(
        name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."), stored=stored
    )
