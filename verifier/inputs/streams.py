"""Samples that are made when they are needed, batch by batch: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex, overload

import msgspec

from verifier.errors import DataError, UsageError
from verifier.inputs.given import Inputs, named, paired, tensors
from verifier.inputs.samples import batch_size, batches, ends, joinable, joined, picked, sample
from verifier.inputs.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.metrics.merging import Merging
    from verifier.ranks import Ranks
    from verifier.records import InputInfo
    from verifier.weights.fingerprint import Hasher


class Source(Protocol):
    """What a stream reads from, again in every pass, and the same each time.

    Attributes:
        samples: How many there are, None where nobody knows before they were read.
        batches: Likewise; known once all were read.
        origin: What to call it.
    """

    samples: int | None
    batches: int | None
    origin: str

    @property
    def identity(self) -> str:
        """By what all samples are known without reading them, empty where only reading tells."""

    @property
    def readers(self) -> int:
        """Processes that read beside this one; 0 where it reads everything itself, whoever wants it."""

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        """The batches of the numbers that are wanted, in their order, each with its number and its first sample's.

        Raises:
            DataError: Samples cannot be read.
        """

    def name(self, sample: int) -> str:
        """What the data calls a sample."""


class Keeping(Protocol):
    """What keeps the passes of an unfinished run (`verifier.bench.checkpoints`)."""

    def begin(self, of: str, what: str, team: Ranks) -> tuple[str, Merging[Any]]:
        """The name of a pass, and what is known of it already."""

    def keep(
        self, name: str, known: Merging[Any], mine: Merging[Any], team: Ranks, *, now: bool = False
    ) -> None:
        """Keep what was known of it, and what this rank has added."""


class Part(NamedTuple):
    """Some samples of a data set that go through at once: the number of their batch, and of the first one."""

    number: int
    offset: int
    inputs: Inputs
    tally: Tally


@dataclass
class Seen:
    """What is known of all samples, whatever their batches: `tally` is None before the first pass."""

    samples: int | None
    batches: int | None
    tally: Tally | None = None


class Stream(Sequence[Inputs]):
    """Batches that are read anew in every pass, of which the first one is held.

    All that is decided on a few samples (recording, pairing, float64, probes) is decided on the `head`.

    Attributes:
        head: The first batch.
        seen: What is known of all samples.
        checkpoint: Where passes are kept that a kill may end, None for nowhere.
    """

    checkpoint: Keeping | None = None

    def __init__(
        self, source: Source, head: Inputs | None = None, size: int | None = None, seen: Seen | None = None
    ) -> None:
        """A stream of a source, of whose batches at most `size` samples go through at once.

        Raises:
            DataError: There is nothing in it, or it cannot be read.
        """
        self._source = source
        self._size = size
        if head is None:
            first = next((each for _, _, each in source.read(lambda number: number == 0)), None)
            if first is None:
                raise DataError(f"{source.origin} holds no samples")
            head = first
        self.seen = seen or Seen(source.samples, source.batches)
        self.head = head if size is None or size >= batch_size(head) else sample(head, size)

    @property
    def ends(self) -> list[int]:
        """The numbers of the samples that everything is decided on: the last and the first of the head."""
        return ends(batch_size(self.head))

    def __len__(self) -> int:
        """How many batches there are, as far as that is known: more than one."""
        return max(2, self.seen.batches or self._source.batches or 0)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Inputs: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Inputs]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Inputs | Sequence[Inputs]:
        """The first batch; no other is held."""
        if index != 0:
            raise IndexError("of a stream only the first batch is held")
        return self.head

    def __iter__(self) -> Iterator[Inputs]:
        """All samples, as they go through.

        Raises:
            DataError: Samples cannot be read, or are not those of the pass before.
        """
        tally, number = Tally(), -1
        for part in self.walk(lambda _: True):
            tally, number = tally.merge(part.tally), part.number
            yield part.inputs
        self.saw(tally, number + 1)

    def walk(self, wanted: Callable[[int], bool]) -> Iterator[Part]:
        """The batches of the numbers that are wanted, in the pieces that go through at once.

        Raises:
            DataError: Samples cannot be read, or the first batch is not the head any more.
        """
        for number, offset, batch in self._source.read(wanted):
            first = offset
            for piece in batches(replace(batch, batch_dim=self.head.batch_dim), self._size):
                tally = Tally.of(piece, first)
                if first == 0 and tally.digest != Tally.of(self.head, 0).digest:
                    raise self._others()
                yield Part(number, first, piece, tally)
                first += batch_size(piece)

    def saw(self, tally: Tally, count: int) -> None:
        """Note what a pass over all samples, in so many batches, has shown.

        Raises:
            DataError: It is not what the pass before has shown, or not all that there is.
        """
        known = self.seen.tally
        if self._source.batches not in (None, count) or (known and known.digest != tally.digest):
            raise self._others()
        self.seen.samples, self.seen.batches, self.seen.tally = tally.samples, count, tally

    def _others(self) -> DataError:
        return DataError(
            f"{self._source.origin} gives other samples in every pass; let it give the same, in one order"
        )

    @property
    def identity(self) -> str:
        """By what all samples are known without reading them, empty where only reading tells."""
        return self._source.identity

    @property
    def readers(self) -> int:
        """Processes that read beside this one; 0 where it reads itself."""
        return self._source.readers

    def along(self, batch_dim: int | None) -> Stream:
        """The same stream, where samples lie along another dimension."""
        head = replace(self.head, batch_dim=batch_dim)
        return Stream(self._source, head, self._size, self.seen)._keeping(self.checkpoint)

    def in_batches(self, size: int) -> Stream:
        """The same samples, of which at most `size` go through at once."""
        return Stream(self._source, self.head, size, self.seen)._keeping(self.checkpoint)

    def _keeping(self, checkpoint: Keeping | None) -> Stream:
        self.checkpoint = checkpoint
        return self

    def alike(self, numbers: Sequence[int], wanted: Sequence[int]) -> list[Inputs]:
        """These samples, by number, in a batch for each of their shapes; none without one that is `wanted`."""
        each = self._each(numbers)
        groups = [group for group in joinable(each) if {numbers[k] for k in group} & {*wanted}]
        return [joined([each[k] for k in group]) for group in groups]

    def _each(self, numbers: Sequence[int]) -> list[Inputs]:
        found: dict[int, Inputs] = {}
        offset = 0
        for batch in self:
            count = batch_size(batch)
            found |= {
                number: picked(batch, [number - offset]) for number in numbers if 0 <= number - offset < count
            }
            offset += count
            if len(found) == len(set(numbers)):
                break
        else:
            raise self._others()
        return [found[number] for number in numbers]

    def name(self, number: int) -> str:
        """What the data calls a sample."""
        return self._source.name(number)

    @property
    def info(self) -> InputInfo:
        """What a record says of it, once it was read: the head's shapes, with how many samples there are."""
        samples, tally = self.seen.samples, self.seen.tally
        counted = "" if samples is None else f"{samples:,} "
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in self.head.info.shapes)
        return msgspec.structs.replace(
            self.head.info,
            description=f"{self._source.origin}, {counted}samples in batches of {shapes}",
            files=(),
            samples=samples,
            digest="" if tally is None else tally.digest,
        )


def headed(inputs: Any, batch_dim: int | None, other: Any) -> tuple[Inputs, Stream | None]:
    """What everything is decided on, and all samples where these are streamed: that is then their first batch.

    Args:
        inputs: A stream, or anything `tensors` takes.
        batch_dim: The dimension along which samples lie.
        other: What the candidate is given, where that is something else.

    Raises:
        UsageError: The candidate is given something else, and samples are streamed.
        InputError: As `tensors` and `paired`.
    """
    if not isinstance(inputs, Stream):
        return paired(replace(tensors(inputs), batch_dim=batch_dim), other), None
    if other is not None:
        raise UsageError(
            "samples are streamed to both models alike; what the candidate is given apart goes with --input."
        )
    stream = inputs.along(batch_dim)
    return stream.head, stream


def informed(given: Inputs, stream: Stream | None, hasher: Hasher) -> InputInfo:
    """What a record says of what went in, with a digest of its numbers."""
    if stream is not None:
        return stream.info
    return msgspec.structs.replace(given.info, digest=hasher.of_all(named(given)))


def sizes(parts: Sequence[Inputs]) -> list[int]:
    """The number of samples in each batch; of a stream as far as it is known, without reading it."""
    if isinstance(parts, Stream):
        return [batch_size(parts.head)] * len(parts)
    return [batch_size(each) for each in parts]


def split(parts: Sequence[Inputs], size: int) -> Sequence[Inputs]:
    """The same samples in batches of at most `size`."""
    if isinstance(parts, Stream):
        return parts.in_batches(size)
    return [each for part in parts for each in batches(part, size)]


def walked(parts: Sequence[Inputs], wanted: Callable[[int], bool]) -> Iterator[Part]:
    """The batches of the numbers that are wanted, one after the other; of those that are held nothing is tallied."""
    if isinstance(parts, Stream):
        yield from parts.walk(wanted)
        return
    offset = 0
    for number, inputs in enumerate(parts):
        if wanted(number):
            yield Part(number, offset, inputs, Tally())
        offset += batch_size(inputs)
