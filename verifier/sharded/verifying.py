"""The verification of a candidate that several processes hold between them, against the whole on the first one."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from torch import nn

from verifier.bench.side import Side
from verifier.cells import ORACLE, Cell, missing_here
from verifier.certificates.recording import undisturbed
from verifier.environment import describe, tf32
from verifier.errors import DeviceError, UsageError
from verifier.forms.loading import is_file
from verifier.inputs import Stream, named, tensors
from verifier.inputs.samples import batch_size
from verifier.judge import concluded
from verifier.metrics.agreement import agreement
from verifier.models.casting import arguments, running
from verifier.models.copying import state_of
from verifier.ranks import ranks
from verifier.records import CellResult, Coverage, ModelInfo, Verdict, WeightsInfo, brief
from verifier.sharded.aligning import aligned, lists, wide
from verifier.sharded.aligning import named as named_on
from verifier.sharded.asking import Crew
from verifier.sharded.candidate import Candidate, is_spread
from verifier.sharded.comparing import Bench
from verifier.sharded.dropping import Draws, dropping
from verifier.sharded.faults import Faults, found_in
from verifier.sharded.parameters import spreads
from verifier.sharded.parts import STATISTICS
from verifier.sharded.placing import Placement, by_shape, join
from verifier.sharded.rows import coverage, judged
from verifier.sharded.settings import otherwise
from verifier.sharded.states import only_written, watched
from verifier.sharded.watching import OUTPUT, STATE, Key, Pass, plain
from verifier.storage.saving import Verification
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.bench.protocol import Protocol
    from verifier.cells import Request
    from verifier.inputs import Inputs
    from verifier.records import OutputAgreement
    from verifier.sharded.aligning import Names
    from verifier.sharded.candidate import Noted
    from verifier.sharded.parameters import Spread
    from verifier.sharded.settings import Otherwise

_OWN = ("transfer", "calibrated", "as-is")  # what is asked for where nobody asks, and what it means here
_SINGLE = Cell("cpu", "float32")
_SOME = 3


@dataclass
class Compared:
    """What one cell has come to."""

    result: CellResult
    faults: Faults
    covered: Coverage
    baseline: Pass
    names: list[Names]
    spreads: Mapping[str, Spread]
    placed: dict[Key, Placement]
    notes: tuple[str, ...]


def verified_sharded(
    baseline: Any,
    candidate: Any,
    inputs: Any,
    *,
    weights: str,
    parameter_map: Mapping[str, object] | None,
    requests: Sequence[Request],
    protocol: Protocol,
    seed: int,
    command: str,
    needing: Mapping[str, bool],
    semantics: bool = True,
    seen: bool = False,
) -> Verification | None:
    """Do the processes that torchrun started compute between them what the whole model does?

    Each runs its own candidate, on the same inputs, with its own weights; the first one runs the baseline, asks the
    others for their tensors site by site, and has the result, which all return.

    Args:
        baseline: The whole model, or a specification of it.
        candidate: A specification of each process's part of the other, or that part.
        inputs: What goes into all of them.
        weights: A mode of `verifier.verify`; its defaults stand for `as-is`.
        parameter_map: Must be None: parameters are recognised by content.
        requests: The cells asked for.
        protocol: How it is judged.
        seed: For models that are built.
        command: How it was asked for, for the record.
        needing: What was asked for that cannot be had, by its option.
        semantics: Whether to compare in float64 first.
        seen: Whether it is only so if the candidate's parameters say so (DTensor); None then, where they do not.

    Raises:
        UsageError: Something asked for cannot be had.
        CannotRunError: This machine cannot run it, a model raised, or the processes wait for each other in vain.
    """
    started = time.perf_counter()
    if seen and (isinstance(inputs, Stream) or not is_spread(candidate, seed)):
        return None
    check_models(baseline, candidate)
    _check_asked(inputs, weights, {**needing, "--map": bool(parameter_map)}, requests)
    given = tensors(inputs)
    own = Candidate(candidate, given, seed)
    with undisturbed(), tf32(allowed=False):
        crew = Crew(own.answers())
        if not ranks().leads:
            verification: Verification = crew.serve()
            return verification
        side = Side.of("baseline", baseline, seed)
        cells, skipped = _cells(requests, crew, protocol, semantics=semantics)
        done: list[Compared] = []
        for cell in cells:
            if cell != ORACLE:
                crew.ask("build", cell, False)
            known = done[0].placed if done and not done[0].faults.blamed else None
            done.append(compared(side, crew, cell, given, protocol, known))
    first = done[0]
    ended = concluded(protocol.policy, [each.result for each in done], first.covered)._asdict()
    verification = Verification(
        **ended,
        **described(side, candidate, first.covered),
        inputs=msgspec.structs.replace(given.info, digest=Hasher().of_all(named(given))),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=protocol.policy.name,
        notes=tuple(
            dict.fromkeys(
                (
                    *side.notes,
                    *skipped,
                    *hidden(state_of(side.model)),
                    *(n for each in done for n in each.notes),
                )
            )
        ),
    )
    crew.end(verification)
    return verification


def described(side: Side, candidate: Any, covered: Coverage) -> dict[str, Any]:
    """Both models and their weights, for a record."""
    state = state_of(side.model)
    size = sum(each.numel() for each in side.model.parameters())
    return {
        "baseline": ModelInfo(
            spec=side.spec, type=type(side.model).__name__, parameters=size, sites=covered.baseline_sites
        ),
        "candidate": ModelInfo(
            spec=candidate if isinstance(candidate, str) else type(candidate).__name__,
            type=f"{ranks().size} processes",
            parameters=size,
            sites=covered.candidate_sites,
        ),
        "weights": WeightsInfo(
            mode="as-is",
            unexercised=tuple(_constant(state)),
            baseline_digest=Hasher().of_all(state.items()),
        ),
    }


def check_models(*models: Any) -> None:
    """Whether they are what a sharded comparison takes.

    Raises:
        UsageError: One is no module, nor a specification of one.
    """
    for model in models:
        if not isinstance(model, nn.Module) and (not isinstance(model, str) or is_file(model)):
            raise UsageError(
                "a sharded candidate and its baseline are modules, or specifications of modules."
            )


def _check_asked(inputs: Any, weights: str, asked: Mapping[str, bool], requests: Sequence[Request]) -> None:
    if ranks().size == 1:
        raise UsageError(
            "--sharded compares a model that several processes hold between them: start it with torchrun."
        )
    if isinstance(inputs, Stream) or inputs is None:
        raise UsageError("a sharded candidate is compared on one batch: give --input, not --data.")
    wanted = [option for option, value in asked.items() if value]
    if wanted:
        raise UsageError(f"{wanted[0]} cannot be had with a sharded candidate; leave it out.")
    if weights not in _OWN:
        raise UsageError(f"a sharded candidate keeps its own weights: --weights {weights} cannot be had.")
    missing = missing_here(requests)
    for request in requests:
        if request.cell in missing:
            raise DeviceError(f"{request.cell.name} cannot run here: {missing[request.cell]}.")


def _cells(
    requests: Sequence[Request], crew: Crew, protocol: Protocol, *, semantics: bool
) -> tuple[list[Cell], list[str]]:
    """Float64 first, where the candidate can be had in it; it is built in it then."""
    cells = [request.cell for request in requests if request.cell != ORACLE]
    wanted = semantics or len(cells) < len(requests)
    if not wanted:
        return cells, []
    protocol.progress("building models", 0, 0)
    failed = next(filter(None, crew.ask("build", ORACLE, True)), "")
    if not failed:
        return [ORACLE, *cells], []
    return cells or [_SINGLE], [f"the candidate could not be compared in float64: {failed}"]


def compared(
    side: Side,
    crew: Crew,
    cell: Cell,
    given: Inputs,
    protocol: Protocol,
    known: Mapping[Key, Placement] | None,
) -> Compared:
    """The forward pass in one cell, in which every process has built its part.

    Args:
        side: The whole model.
        crew: The processes.
        cell: The cell.
        given: What goes into the whole.
        protocol: How it is judged.
        known: How sites lie, as another cell has told.
    """
    started = time.perf_counter()
    protocol.progress(f"comparing in {cell.name}", 0, 0)
    other = _SINGLE if cell == ORACLE else ORACLE
    noted: list[Noted] = crew.ask("run", {})
    here, beside = _baseline(side, cell, given), _baseline(side, other, given)
    state = {plain(name): tensor for name, tensor in state_of(side.model).items()}
    shapes = crew.ask("state")
    earlier: Counter[str] = Counter()
    numbers: dict[str, set[int]] = {}
    for each in noted:
        for before, held in lists(each.kinds).items():
            numbers.setdefault(before, set()).update(held)
    names = [
        named_on(state, here.kinds, each, shapes[rank], _fetching(crew, rank), earlier, numbers)
        for rank, each in enumerate(noted)
    ]
    everything, noted = noted, only_written((here, beside), noted, names)
    pairs = aligned(here, noted, names)
    draws = Draws(crew, pairs)
    if dropping(here):
        here, beside = _baseline(side, cell, given, draws), _baseline(side, other, given, draws)
        only_written((here, beside), everything, names)
    found_spreads = spreads(state, crew, shapes, names)
    others = otherwise(here, noted, names, pairs)
    bench = Bench(crew, cell, protocol.policy, here, beside, pairs, others)
    agreed = _agreement(bench)
    forcing = protocol.localise != "never"
    faults = found_in(bench, found_spreads, state, draws.causes, known, forcing=forcing)
    result, ends = judged(bench, faults)
    returned = max((each.outputs for each in noted), default=0)
    own = {
        (called.whole(held.key.scope), *held.key[1:])
        for called, each in zip(names, noted, strict=True)
        for held in each.held
    }
    covered = coverage(here, pairs, faults, (len(here.outputs), returned), len(own), ())
    cell_result = CellResult(
        name=cell.name,
        role="semantics" if cell == ORACLE else "numerics",
        batch_size=batch_size(given),
        **result.told(),
        seconds=time.perf_counter() - started,
        output=agreed,
        outputs=ends,
    )
    why = next(_doubts(bench, faults, noted, others), "")
    if why and cell_result.verdict is Verdict.MATCH:
        cell_result = msgspec.structs.replace(cell_result, verdict=Verdict.INCONCLUSIVE, reason=brief(why))
    placed = {each.key: each.placed for each in faults.free if each.placed is not None and each.proved}
    apart = [f"{scope}: {each.said}" for scope, all_ in others.items() for each in all_ if not each.reached]
    told = tuple(_notes(faults, found_spreads, noted))
    if apart:
        told += (f"written otherwise than the baseline's: {'; '.join(apart[:_SOME])}",)
    return Compared(cell_result, faults, covered, here, names, found_spreads, placed, told)


def _doubts(
    bench: Bench, faults: Faults, noted: Sequence[Noted], others: Mapping[str, Sequence[Otherwise]]
) -> Iterator[str]:
    """Reasons why the same numbers are no match."""
    here = bench.baseline
    most = max((each.budget.total for each in faults.free if each.key.returned), default=0.0)
    if not all(each.apart <= most for each in noted):
        yield "the candidate gives other numbers when it is watched, or each time"
    lost = [e.key.name for e in here.events.values() if e.op == STATE and not any(bench.aligned.parts[e.key])]
    if lost:
        yield f"what the baseline leaves in {', '.join(lost[:_SOME])} is in no buffer of the candidate's"
    unreached = [
        f"{scope}: {each.said}"
        for scope, all_ in others.items()
        for each in all_
        if each.telling and not each.reached
    ]
    if unreached:
        yield f"the same numbers on these inputs, but written otherwise: {'; '.join(unreached[:_SOME])}"
    for position in range(len(here.outputs)):
        for rank in bench.strays(position):
            yield f"rank {rank} returns at position {position} what has another shape than the baseline's output"


def _baseline(side: Side, cell: Cell, given: Inputs, draws: Draws | None = None) -> Pass:
    model = side.held({}, cell).model
    args, kwargs = arguments(given, cell)
    with running(cell):
        return watched(model, args, kwargs, dropped=None if draws is None else draws.drop, keeping=STATISTICS)


def _fetching(crew: Crew, rank: int) -> Any:
    def fetch(name: str) -> Tensor | None:
        found: Tensor | None = crew.ask(
            "parameter", [name if k == rank else None for k in range(ranks().size)]
        )[rank]
        return found

    return fetch


def _agreement(bench: Bench) -> OutputAgreement | None:
    """How well what comes out agrees, in order of the ranks, as it is put together without looking at its numbers."""
    pairs = []
    for position, value in enumerate(bench.baseline.outputs):
        whole, pieces = wide(value), bench.pieces(Key("", OUTPUT, position))
        shaped = by_shape(whole, pieces) if pieces else None
        joined = None if shaped is None else join(shaped, whole, pieces)
        if joined is not None:
            pairs.append((whole, joined))
    return agreement(*zip(*pairs, strict=True)) if pairs else None


def _constant(state: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel() > 1 and bool(((tensor == 0) | (tensor == 1)).all()):
            yield name


def hidden(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Which parameters hide how they are used, as a note."""
    names = list(_constant(state))
    if names:
        more = f" and {len(names) - _SOME} more" if names[_SOME:] else ""
        yield f"parameters that are all 0 or 1 hide how they are used: {', '.join(names[:_SOME])}{more}"


def _notes(faults: Faults, found: Mapping[str, Spread], noted: Sequence[Noted]) -> Iterator[str]:
    yield from dict.fromkeys(note for each in noted for note in each.notes)
    kinds: dict[str, int] = {}
    for each in faults.free:
        kinds[each.text] = kinds.get(each.text, 0) + 1
    told = ", ".join(f"{count} {text}" for text, count in sorted(kinds.items(), key=lambda kv: -kv[1])[:6])
    yield f"how the ranks hold what they compute, told by its numbers: {told}"
    for each in faults.free:
        if each.key.returned and each.text not in ("replica", "unknown"):
            yield f"what the model returns ({each.key.name}) comes as {each.text}"
    flawed = [each.said for each in found.values() if each.flaw]
    if flawed:
        yield f"parameters that are not the baseline's: {'; '.join(flawed[:_SOME])}"
    if faults.further:
        yield "what lies behind the last fault could not be put right: further faults may lie behind it"
    proved = [(each.key.name, each.placed) for each in faults.free if each.placed is not None and each.proved]
    vague = [name for name, placed in proved if not placed.certain]
    if vague:
        more = f" and {len(vague) - _SOME} more" if len(vague) > _SOME else ""
        yield f"more than one placement explains the numbers of {', '.join(vague[:_SOME])}{more}"
