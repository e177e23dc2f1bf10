"""Baseline against candidate in one cell: free passes, forced ones, or both side by side."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.bench.batched import Batched, Measured, Run
from verifier.bench.checkpoints import comparison
from verifier.bench.subject import SIDES
from verifier.border.error_texts import first_line
from verifier.errors import DataError, OutOfMemoryError, OutputError, ProcessError
from verifier.graph.returned import words_apart
from verifier.graph.tensors import tensors_given
from verifier.inputs.samples import batch_size, ends, rows
from verifier.inputs.streams import Part, Stream, sizes, walked
from verifier.inputs.tally import Tally
from verifier.lockstep import Comparing, Plan, Replay, meet, queue, unreplayable
from verifier.metrics.agreement import Agreed
from verifier.metrics.merging import Merging
from verifier.models.casting import arguments
from verifier.ranks import ranks, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.errors import VerifierError
    from verifier.inputs import Inputs
    from verifier.lockstep import Passes, Queued
    from verifier.ranks import Ranks


class Kinds(NamedTuple):
    """Which passes of the candidate go beside the baseline's."""

    free: bool
    forced: bool

    @property
    def forces(self) -> list[bool]:
        """For each of the candidate's lanes whether it is forced."""
        return [force for force, wanted in zip((False, True), self, strict=True) if wanted]


def measure(bench: Bench, inputs: Sequence[Inputs], *, free: bool = True, forced: bool = True) -> Measured:
    """Baseline against candidate over all batches of `inputs`, in the bench's cell."""
    try:
        found = _over_batches(bench, inputs, Kinds(free, forced))
        if not (found.shared and free and forced):
            return found
        freely = _over_batches(bench, inputs, Kinds(free=True, forced=False))
        return freely.with_forced(_over_batches(bench, inputs, Kinds(free=False, forced=True)))
    except torch.OutOfMemoryError as error:  # elsewhere than in a model: in moving inputs, in comparing
        raise OutOfMemoryError(f"out of memory in {bench.cell.name}. Use a smaller --batch-size.") from error


def _over_batches(bench: Bench, inputs: Sequence[Inputs], kinds: Kinds) -> Measured:
    """All batches: those that are streamed are shared among the ranks, and then known to all of them."""
    if not isinstance(inputs, Stream):
        mine: Merging[Batched] = Merging()
        notes = _over_some(bench, inputs, kinds, lambda _: True, mine)
        return _known(mine).measured(notes)
    team, kept = ranks(), inputs.checkpoint
    what = f"{bench.cell.name}, {kinds}, {len(bench.alignment.pairs)} pairs"
    name, known = "", Merging[Batched]()
    if kept is not None or team.size > 1:
        of = comparison(bench, inputs)
        _check_alike(inputs, of, team)
        if kept is not None:
            name, known = kept.begin(of, what, team)
    resumed = known.count > 0

    def keep(mine: Merging[Batched], *, now: bool = False) -> None:
        if kept is not None:
            kept.keep(name, known, mine, team, now=now)

    def own() -> tuple[str, Merging[Batched], list[str]]:
        mine: Merging[Batched] = Merging()
        try:
            return what, mine, _over_some(bench, inputs, kinds, share(team, len(inputs), known), mine, keep)
        finally:  # another rank may end all, too
            with contextlib.suppress(OutputError):  # what ended it is told
                keep(mine, now=True)

    every = team.together(own, alike=lambda each: each[0])
    for _, some, _ in every:
        known.absorb(some)
    whole = _known(known)
    inputs.saw(whole.tally, known.count)
    if resumed and not inputs.identity:  # what was measured before was not read again
        for _ in inputs:
            pass
    if kept is not None and team.leads:
        kept.keep(name, known, Merging(), team, now=True)
    return whole.measured(tuple(dict.fromkeys(note for *_, notes in every for note in notes)))


def _check_alike(inputs: Stream, of: str, team: Ranks) -> None:
    """Whether all ranks compare the same on the same samples.

    Raises:
        DataError: They were given others.
        ProcessError: They have built other models.
    """
    found = team.gather((Tally.of(inputs.head, 0).digest, of))
    heads, programs = (set(each) for each in zip(*found, strict=True))
    error: VerifierError | None = None
    if len(heads) > 1:
        error = DataError(
            "the ranks are given other samples each. Give all of them the whole data set (without a "
            "DistributedSampler, say): each takes its share of it."
        )
    elif len(programs) > 1:
        error = ProcessError(
            "the ranks have built other models, or weights with other bits. Let what the models draw hang on a seed, "
            "and give them machines of one kind, with as many threads each; --sharded is for parts of one model."
        )
    if error is not None:
        error.elsewhere = not team.leads
        raise error


def _known(found: Merging[Batched]) -> Batched:
    whole = found.whole()
    assert whole is not None  # noqa: S101 - there is always a batch
    return whole


def _over_some(
    bench: Bench,
    inputs: Sequence[Inputs],
    kinds: Kinds,
    mine: Callable[[int], bool],
    found: Merging[Batched],
    keep: Callable[[Merging[Batched]], None] = lambda _: None,
) -> list[str]:
    """Merge what the batches of numbers that are this process's give into `found`; notes on how they ran."""
    queued: list[_Queued] = []
    replay: Replay | None = None
    notes: list[str] = []
    counts = sizes(inputs)
    wanted = inputs.ends if isinstance(inputs, Stream) else ends(sum(counts))

    def fetched() -> None:
        for each in queued:
            found.extend(each.part.number, _batch(each, kinds, bench.cell, wanted))
        queued.clear()
        keep(found)

    for turn, part in enumerate(walked(inputs, mine)):
        # The first batch runs live in any case: it loads kernels and shows that the models keep to their graphs.
        if turn == 1 and _worthwhile(bench, counts[1:]):
            made = recorded(bench, part.inputs, kinds)
            if isinstance(made, Replay):
                replay = made
            else:
                notes.append(f"every batch was run live, none replayed from a recording: {made}")
        tensors = [] if replay is None else _tensors(part.inputs, bench.cell)
        if replay is not None and not replay.fits(tensors):
            fetched()
            replay = None  # and with it the memory it runs in
            notes.append(
                f"batches from sample {part.offset} on were run live: others were recorded, of another size"
            )
        if replay is not None:
            queued.append(_Queued(replay(tensors, part.offset), part))
            for _ in bench.alignment.pairs:
                bench.progress()
        else:
            queued.append(_Queued(_queue(bench, part.inputs, kinds, part.offset), part))
        if replay is None or len(queued) == _WAITING:
            fetched()
    fetched()
    found.close()
    return notes


class _Queued(NamedTuple):
    """A batch that both models have been given, and what a device may still have to compute of it."""

    passes: Queued
    part: Part


# Batches whose results stay on the device: fetching them waits for it.
_WAITING = 16


# A recording costs as much of Python's time as a batch does, so it saves some from the second batch on.
_REPLAYED = 2


def _worthwhile(bench: Bench, counts: Sequence[int]) -> bool:
    return bench.cell.is_cuda and counts.count(counts[0]) >= _REPLAYED


def recorded(bench: Bench, inputs: Inputs, kinds: Kinds) -> Replay | str:
    """The passes over a batch like this one as one launch; why not, where something does not allow that."""
    if inputs.other is not None:
        return "the two models are given inputs of their own"
    if why := unreplayable([bench.alignment.baseline, bench.alignment.candidate]):
        return why
    try:
        args, kwargs = arguments(inputs, bench.cell)
        there = replace(inputs, args=args, kwargs=kwargs)
        quiet = bench.at(progress=lambda: None)
        return Replay(lambda: _queue(quiet, there, kinds, 0), _tensors(there, bench.cell))
    except Exception as error:  # each obstacle is one of its own; the batch runs as the first did
        return first_line(error)


def _queue(bench: Bench, inputs: Inputs, kinds: Kinds, offset: int) -> Queued:
    """Both models over one batch; a lane of the candidate for each of the kinds, forced or not."""
    baseline = bench.lane(SIDES[0], inputs=inputs)
    candidates = [
        bench.lane(SIDES[1], inputs=inputs if force else inputs.other or inputs) for force in kinds.forces
    ]
    sides = [SIDES[0], *[SIDES[1]] * len(candidates)]
    after = 0 if kinds.free and inputs.other is None else None  # on the same inputs, the forced one can wait
    return queue(
        [baseline, *candidates],
        Plan(
            [bench.paired_sites(side) for side in sides],
            [Comparing(0, k, force, after if force else None) for k, force in enumerate(kinds.forces, 1)],
            [bench.written(side) for side in sides],
            bench.alignment.laid_out,
        ),
        bench.progress,
        offset,
    )


def _batch(queued: _Queued, kinds: Kinds, cell: Cell, wanted: Sequence[int]) -> Batched:
    passes = queued.passes.fetch()
    _, offset, inputs, tally = queued.part
    first = _beside(passes, 0, (0, 1), inputs, cell, wanted, offset, free=kinds.free)
    runs = map(Run, passes.meetings, passes.outputs, passes.states)
    return replace(
        first,
        free=next(runs) if kinds.free else None,
        forced=next(runs) if kinds.forced else None,
        narrowed=(passes.narrowed[0], frozenset().union(*passes.narrowed[1:])),
        lost=passes.lost,
        shared=passes.shared,
        tally=tally,
    )


def met_in(
    passes: Passes,
    comparison: int,
    lanes: tuple[int, int],
    inputs: Inputs,
    cell: Cell,
    forced: int | None = None,
) -> Measured:
    """What one of the comparisons of a run measured between two of its lanes, which nothing has overwritten.

    `forced` is the comparison with a lane that was, if there is one.
    """
    found = _beside(passes, comparison, lanes, inputs, cell, ends(batch_size(inputs)))
    if forced is not None:
        found = replace(
            found,
            forced=Run(passes.meetings[forced], passes.outputs[forced], passes.states[forced]),
            lost=passes.lost,
        )
    return found.measured(())


def _beside(
    passes: Passes,
    comparison: int,
    lanes: tuple[int, int],
    inputs: Inputs,
    cell: Cell,
    wanted: Sequence[int],
    offset: int = 0,
    *,
    free: bool = True,
) -> Batched:
    """What one comparison measured; all tensors are read now, before a model runs again and may write into them."""
    baseline, candidate = lanes
    other = inputs.other
    said = words_apart(passes.words[baseline], passes.words[candidate])
    values, samples = (passes.values[baseline], passes.values[candidate]), batch_size(inputs)
    numbers = [number - offset for number in wanted if 0 <= number - offset < samples]
    return Batched(
        free=Run(passes.meetings[comparison], passes.outputs[comparison], passes.states[comparison]),
        forced=None,
        inputs=() if other is None else meet(_tensors(inputs, cell), _tensors(other, cell), offset),
        samples=samples,
        agreed=Agreed.of(*values, samples, offset) if free else None,
        whole=tuple(
            not any(tensor.is_floating_point() or tensor.is_complex() for tensor in pair)
            for pair in zip(*values, strict=False)
        ),
        rows={
            offset + number: (_row(values[0], samples, number), _row(values[1], samples, number))
            for number in numbers
        },
        words=tuple(each for each, may_say_nothing in said if not may_say_nothing),
        narrowed=(passes.narrowed[baseline], passes.narrowed[candidate]),
    )


def _row(values: Sequence[Tensor], samples: int, number: int) -> list[Tensor]:
    return [each.cpu().clone() for each in rows(values, samples, [number])]


def _tensors(inputs: Inputs, cell: Cell) -> list[Tensor]:
    return tensors_given(arguments(inputs, cell, overwritten=False))
