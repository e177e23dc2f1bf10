"""The batches that go through both models; of a stream, how many there are and what reading them takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.inputs.samples import batch_size
from verifier.ranks import Ranks, share

if TYPE_CHECKING:
    from verifier.inputs import Stream


@dataclass(frozen=True)
class Parts:
    """The batches of one rank.

    Attributes:
        sizes: The number of samples in each.
        samples: Of all ranks; None where nobody knows, and `sizes` are those of one batch.
        read: How many batches this rank reads, whoever takes them.
        seconds: What reading one takes, and what noting its samples does.
        readers: Processes that read beside this one; 0 where it reads itself.
        streamed: Whether they are not held.
    """

    sizes: tuple[int, ...]
    samples: int | None = None
    read: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    readers: int = 0
    streamed: bool = False

    @classmethod
    def of(cls, stream: Stream, ranks: int) -> Parts:
        """The batches of the last of so many ranks; the first batch is read once more to see what that takes."""
        size, samples, count = batch_size(stream.head), stream.seen.samples, stream.seen.batches
        started = time.perf_counter()
        part = next(stream.walk(lambda number: number == 0))
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        part.tally.of(part.inputs, 0)
        noting = time.perf_counter() - started
        wanted = share(Ranks(ranks - 1, ranks), count or 0)
        own = [number for number in range(count or 1) if wanted(number) or not count]
        last = size if samples is None or not count else samples - (count - 1) * size
        sizes = tuple(last if number == (count or 1) - 1 else size for number in own)
        if samples is None and count:
            samples = count * size
        readers = stream.readers
        read = len(own) if readers else count or 1
        return cls(sizes, samples, read, (max(0.0, seconds - 2 * noting), noting), readers, streamed=True)

    @property
    def uncounted(self) -> bool:
        """Whether nobody knows how many there are before they were read."""
        return self.streamed and self.samples is None

    def reading(self, beside: float) -> float:
        """Seconds a pass takes longer for reading, where the models run for `beside` seconds."""
        noting = len(self.sizes) * self.seconds[1]
        return noting + (max(0.0, self.alone - beside) if self.readers else self.alone)

    @property
    def alone(self) -> float:
        """Seconds a pass takes for reading, with nothing beside it."""
        return self.read * self.seconds[0] / max(1, self.readers)
