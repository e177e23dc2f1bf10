"""How far a candidate's tensors are from what is recorded of a baseline's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import torch

from verifier.certificates.summary import bits_of, compared, equal, summarise
from verifier.graph.tensors import dense
from verifier.lockstep import overwrite
from verifier.metrics import collect, compare, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.align import Alignment, Pair
    from verifier.bench.bench import Bench
    from verifier.certificates.arrays import Recording
    from verifier.certificates.keeping import Kept
    from verifier.certificates.summary import Summary
    from verifier.records import Comparison

_LONG = (torch.int64, torch.uint64)
_EXACT = 2.0**106  # the square of the largest integer up to which float64 holds all

Error: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...], Comparison | None]"
"""The recorded shape, the candidate's, and how far the two are apart where these agree."""


class Met:
    """What meets a recording while the candidate runs: for each pair, how far apart the two are."""

    def __init__(self, recording: Recording, alignment: Alignment, full: Kept | None = None) -> None:
        self._recording = recording
        self._alignment = alignment
        self._full = full
        self._row = {site: k for k, site in enumerate(recording.record.sites)}
        self.errors: dict[Pair, Error] = {}

    def meet(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Compare the candidate's tensor at a pair with what is recorded of the baseline's."""
        pair = self._alignment.pairs[number]
        row = self._row[pair.baseline]
        shape = self._recording.record.shapes[row]
        tensor = dense(tensors[0])
        layout = self._alignment.layouts.get(pair)
        if layout is not None:
            with contextlib.suppress(RuntimeError):  # where sizes do not allow it, the shapes differ
                tensor = layout.back(tensor, shape)
        self.errors[pair] = shape, tuple(tensor.shape), self.distance(row, shape, tensor)

    def known(self) -> dict[int, Summary]:
        """What is recorded, by the baseline's site."""
        return {site: self._recording.summaries[row] for site, row in self._row.items()}

    def whole(self, row: int) -> Tensor | None:
        """A recorded tensor in full, where it is kept."""
        record = self._recording.record
        if self._full is None or row >= len(record.sites):
            return None
        return self._full.tensor(record.sites[row], self._recording.summaries[row].bits)

    def forced(self, bench: Bench, alignment: Alignment) -> tuple[dict[Pair, Comparison], set[Pair]]:
        """How far apart the two are where the candidate is given what is kept in full, and the pairs where it was."""
        pairs = {pair.candidate: pair for pair in alignment.pairs if pair not in alignment.layouts}
        errors: dict[Pair, Comparison] = {}
        held: set[Pair] = set()
        lane = bench.lane("candidate", stops=set(pairs))
        try:
            while (site := lane.advance()) is not None:
                pair = pairs.get(site)
                if pair is None or lane.tensor is None:
                    continue
                error = self.error(pair.baseline, dense(lane.tensor))
                if error is None:
                    continue
                errors[pair] = error
                whole = None if error.max_abs == 0 else self.whole(self._row[pair.baseline])
                if whole is not None and overwrite(lane.tensor, whole.to(lane.tensor), lane):
                    held.add(pair)
        finally:
            lane.close()
        return errors, held

    def shape(self, pair: Pair) -> tuple[int, ...]:
        """The recorded shape at a pair."""
        return self._recording.record.shapes[self._row[pair.baseline]]

    def error(self, site: int, tensor: Tensor) -> Comparison | None:
        """How far a tensor is from what is recorded of a baseline's site; None where the shapes differ."""
        row = self._row[site]
        return self.distance(row, self._recording.record.shapes[row], tensor)

    def distance(self, row: int, shape: tuple[int, ...], tensor: Tensor) -> Comparison | None:
        """How far a tensor is from a recorded one; None where the shapes differ."""
        if tuple(tensor.shape) != shape:
            return None
        known: Summary = self._recording.summaries[row]
        bits = bits_of(tensor)
        if bits == known.bits:
            return equal(known)
        whole = self.whole(row)
        if whole is not None:
            return compare(collect([measure(whole.to(tensor.device), tensor)])[0])
        found = compared(known, summarise(tensor, bits))
        if found.max_abs == 0 and tensor.dtype in _LONG and known.moments.squares > _EXACT:
            # float64 does not tell them apart; they differ all the same
            found = msgspec.structs.replace(found, max_abs=1.0, mse=1.0 / found.elements, nrmse=2.0**-53)
        return found
