"""What a comparison of a candidate that processes hold between them will take on each, told from the whole alone."""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from verifier.bench.side import Side
from verifier.cells import ORACLE, Cell, missing_here
from verifier.certificates.recording import undisturbed
from verifier.environment import tf32
from verifier.errors import UsageError
from verifier.estimate.memory import known, resident, resident_peak
from verifier.inputs import Stream, tensors
from verifier.inputs.samples import batch_size
from verifier.judge import STRICT
from verifier.metrics import warm_up
from verifier.models.casting import arguments, running
from verifier.models.copying import state_of
from verifier.records import Estimate, Forwards, Phase
from verifier.sharded.aligning import Aligned, Names
from verifier.sharded.comparing import Bench
from verifier.sharded.dropping import dropping
from verifier.sharded.parameters import spreads
from verifier.sharded.parts import STATISTICS
from verifier.sharded.states import put_back, watched
from verifier.sharded.watching import STATE, plain
from verifier.sharded.wire import Wire
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.cells import Request
    from verifier.inputs import Inputs
    from verifier.sharded.watching import Event, Key, Pass

_SINGLE = Cell("cpu", "float32")
_OUTPUT = 3  # how often what the model returns is asked for
_COPIES = 3  # of a tensor that a process tells, as bytes


def estimated_sharded(
    baseline: Any, inputs: Any, *, requests: Sequence[Request], seed: int = 0, of: int
) -> Estimate:
    """Run the whole as `verified_sharded` does, cut its own tensors in parts, and add up what is left to do.

    Args:
        baseline: The whole model, or a specification of it.
        inputs: What goes into all of them.
        requests: The cells asked for.
        seed: For a model that is built.
        of: How many processes hold the candidate between them.

    Returns:
        What the first one takes, as the others wait for it; `others` is the memory of each of them.

    Raises:
        UsageError: Something asked for cannot be had.
        CannotRunError: This machine cannot run it.
    """
    if of < 2:
        raise UsageError("--sharded is for a model that several processes hold: say how many with --ranks N.")
    if isinstance(inputs, Stream) or inputs is None:
        raise UsageError("a sharded candidate is compared on one batch: give --input, not --data.")
    missing = missing_here(requests)
    given = tensors(inputs)
    cells = list(dict.fromkeys([ORACLE, *(each.cell for each in requests if each.cell not in missing)]))
    with undisturbed(), tf32(allowed=False):
        warm_up()
        started = time.perf_counter()
        side = Side.of("baseline", baseline, seed)
        building = time.perf_counter() - started
        wire = Wire.of(of)
        started = time.perf_counter()
        Hasher().of_all(state_of(side.model).items())
        digests = time.perf_counter() - started
        whole = _Whole(side, given, of, wire)
        first = whole.warmed()
        for cell in dict.fromkeys([*cells, _SINGLE]):
            whole.run(cell)
        phases = (
            Phase(name="building, the part once for each cell", cell="", seconds=building * (1 + len(cells))),
            Phase(name="the first pass of all, of the part", cell="", seconds=first),
            *(phase for cell in cells for phase in whole.phases(cell, first=cell == cells[0])),
            Phase(name="digests of weights", cell="", seconds=digests),
        )
    lead, others = whole.memory(cells)
    return Estimate(
        phases=phases,
        alike=True,
        memory=lead if known() else None,
        missing=tuple(f"{cell.name}: {why}" for cell, why in missing.items()),
        ranks=of,
        sharded=True,
        others=others if known() else None,
    )


def _now() -> float:
    return float(resident("VmRSS")) if known() else 0.0


@dataclass
class _Ran:
    """What a pass of the whole took: seconds bare and watched, bytes at its peak and kept; whether it draws."""

    bare: float
    watched: float
    peak: float
    kept: float
    drawn: bool
    found: Pass


@dataclass
class _Whole:
    """The whole model, its passes by cell, and the bytes that are resident before the first that counts."""

    side: Side
    given: Inputs
    count: int
    wire: Wire
    resting: float = 0.0
    ran: dict[Cell, _Ran] = field(default_factory=dict)
    joining: dict[Cell, float] = field(default_factory=dict)

    def warmed(self) -> float:
        """Seconds of a pass that is unlike any other: it loads what all need."""
        started = time.perf_counter()
        watched(self.side.model, *self.side.arguments(self.given), keeping=STATISTICS)
        seconds = time.perf_counter() - started
        with resident_peak():  # what is free is given back
            self.resting = _now()
        return seconds

    def run(self, cell: Cell) -> None:
        """Run it once bare and once watched."""
        with resident_peak() as most:
            model = self.side.held({}, cell).model
            args, kwargs = arguments(self.given, cell)
            with running(cell):
                started = time.perf_counter()
                with put_back(model), torch.no_grad():
                    model(*args, **kwargs)
                bare = time.perf_counter() - started
                before = _now()
                started = time.perf_counter()
                found = watched(model, args, kwargs, keeping=STATISTICS)
                seconds = time.perf_counter() - started
        kept = max(0.0, _now() - before)
        written = found.written
        for key in [k for k, event in found.events.items() if event.op == STATE and k.name not in written]:
            del found.events[key]
        self.ran[cell] = _Ran(bare, seconds, float(most.grown), kept, dropping(found), found)

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers, by the names they are asked for."""
        return {plain(name): tensor for name, tensor in state_of(self.side.model).items()}

    def phases(self, cell: Cell, *, first: bool) -> Iterator[Phase]:
        """What one cell takes; behind the first one it is known how the sites lie."""
        here, beside = self.ran[cell], self.ran[_beside(cell)]
        samples = batch_size(self.given)
        times = 2 if here.drawn else 1
        own = [Forwards(passes=2, samples=samples, dtype=cell.dtype)]
        both = [Forwards(passes=times, samples=samples, dtype=each.dtype) for each in (cell, _beside(cell))]
        yield Phase(
            name="the part, bare and watched",
            cell=cell.name,
            seconds=here.bare + here.watched,
            forwards=tuple(own),
        )
        yield Phase(
            name="the whole, in two precisions",
            cell=cell.name,
            seconds=times * (here.watched + beside.watched),
            forwards=tuple(both),
        )
        state = self.state
        with resident_peak() as most:
            weights = self._seconds(state, lambda name, way: self._spread({name: state[name]}, cell, way))
            sites = self._sites(cell, first=first)
        self.joining[cell] = float(most.grown)
        yield Phase(name="parameters joined", cell=cell.name, seconds=weights)
        yield Phase(name="sites joined", cell=cell.name, seconds=sites)

    def _sites(self, cell: Cell, *, first: bool) -> float:
        found = self.ran[cell].found
        parts: dict[Key, tuple[tuple[Key, ...], ...]] = {key: ((key,),) * self.count for key in found.events}
        crews: dict[bool, Any] = {way: _Alone(found, {}, self.count, way) for way in (False, True)}
        benches = {
            way: Bench(crew, cell, STRICT, found, self.ran[_beside(cell)].found, Aligned(parts, (), {}))
            for way, crew in crews.items()
        }

        def compare(key: Key, way: bool) -> float:
            event: Event = found.events[key]
            placed = None if first else benches[way].site(event).placed
            return _seconds(crews[way], lambda: benches[way].site(event, placed))

        for key in sorted(found.events, key=lambda key: found.events[key].value.numel())[:1]:
            compare(key, way=True)  # it loads what all need
        seconds = self._seconds({key: event.value for key, event in found.events.items()}, compare)
        return seconds + sum(_OUTPUT * self._asked(tensor) for tensor in found.outputs)

    def _spread(self, state: Mapping[str, Tensor], cell: Cell, way: bool) -> float:
        dtype = cell.torch_dtype
        cast = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
        crew: Any = _Alone(self.ran[cell].found, cast, self.count, way)
        shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()}] * self.count
        return _seconds(crew, lambda: spreads(state, crew, shapes, [Names()] * self.count))

    def _seconds(self, tensors_: Mapping[Any, Tensor], take: Any) -> float:
        """What all of them take, each asked for: one of every shape is tried, as copies and cut."""
        alike: dict[tuple[object, ...], list[Any]] = defaultdict(list)
        for key, tensor in tensors_.items():
            alike[tuple(tensor.shape), tensor.dtype].append(key)
        total = 0.0
        for keys in alike.values():
            ways = [take(keys[0], way) for way in (False, True)]
            total += len(keys) * (sum(ways) / len(ways) + self._asked(tensors_[keys[0]]))
        return total

    def _asked(self, tensor: Tensor) -> float:
        """What asking for all parts of one takes."""
        size = tensor.numel() * tensor.element_size()
        return self.wire.seconds + (self.count + 1) / 2 * size / self.wire.rate

    def memory(self, cells: Sequence[Cell]) -> tuple[float, float]:
        """Bytes at the peak of the first process, and of each other."""
        state = list(self.state.values())
        size = float(sum(each.numel() * each.element_size() for each in state))
        lead = others = 0.0
        done = before = 0.0
        for cell in cells:
            here, beside = self.ran[cell], self.ran[_beside(cell)]
            part = here.kept + _size(state, cell) / self.count
            lead = max(
                lead,
                size + before + done,  # the part is cut of a whole
                part + done + here.peak,
                part + done + here.kept + beside.peak,
                part + done + here.kept + beside.kept + self.joining[cell],
            )
            answer = _COPIES * max((e.value.nbytes for e in here.found.events.values()), default=0)
            others = max(
                others, size + before, part + max(answer, here.peak - here.kept - _size(state, cell))
            )
            done, before = done + here.kept, here.kept
        return self.resting + lead, self.resting - size + others


def _beside(cell: Cell) -> Cell:
    return _SINGLE if cell == ORACLE else ORACLE


def _size(state: Sequence[Tensor], cell: Cell) -> float:
    wide = cell.torch_dtype
    return float(
        sum(
            each.numel() * (wide.itemsize if each.is_floating_point() else each.element_size())
            for each in state
        )
    )


@dataclass
class _Alone:
    """Answers for all processes as if each had a copy of the whole's tensors, or with `cut` a slice.

    `spent` are the seconds this took, which `Wire` has measured between processes.
    """

    found: Pass
    state: Mapping[str, Tensor]
    count: int
    cut: bool
    spent: float = 0.0

    def ask(self, what: str, asked: Sequence[Any]) -> list[Any]:
        """What all answer, as it arrives."""
        started = time.perf_counter()
        if what == "parameter":
            found: list[Any] = _told(self._pieces(self.state[asked[0]]))
        else:
            found = [[each] for each in _told(self._pieces(self.found.events[asked[0][0]].value))]
        self.spent += time.perf_counter() - started
        return found

    def _pieces(self, tensor: Tensor) -> list[Tensor]:
        wide = [axis for axis in range(tensor.dim()) if tensor.shape[axis] >= self.count]
        if not self.cut or not wide:
            return [tensor.detach()] * self.count
        return [each.contiguous() for each in tensor.detach().tensor_split(self.count, wide[-1])]


def _seconds(crew: _Alone, call: Callable[[], object]) -> float:
    """What a call takes beyond what is told between processes."""
    before, started = crew.spent, time.perf_counter()
    call()
    return time.perf_counter() - started - (crew.spent - before)


def _told(pieces: Sequence[Tensor]) -> list[Tensor]:
    """What arrives of tensors that are told as bytes, with the copies that torch makes of those."""
    sent = [torch.frombuffer(bytearray(pickle.dumps(each)), dtype=torch.uint8) for each in pieces]
    return [pickle.loads(each.numpy().tobytes()) for each in sent]  # noqa: S301 - made here
