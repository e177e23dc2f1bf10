"""What `--data` leads to: a file of samples, or a function that gives batches or a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch.utils.data import Dataset

from verifier.border import heartbeat
from verifier.border.error_texts import account
from verifier.border.programs import translating, undisturbed
from verifier.environment import preserved, seed_all
from verifier.errors import DataError
from verifier.inputs.datasets import Indexed, Likeness, Photographs
from verifier.inputs.given import as_arguments, described
from verifier.inputs.images import images, photographs, prepared_alike
from verifier.inputs.lines import Lines, Rows
from verifier.inputs.samples import batch_size, sample
from verifier.inputs.streams import Stream
from verifier.models import specs
from verifier.ranks import ranks, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.inputs.datasets import Samples
    from verifier.inputs.given import Inputs
    from verifier.records import Preprocessing

_END = object()

HELD = 64
"""Photographs that are held in memory; more are streamed."""

_SHOWN = 8  # of the photographs that two preprocessings make other tensors of

_FILES: dict[str, Callable[[Path], Samples]] = {".jsonl": Lines, ".ndjson": Lines, ".parquet": Rows}


def data(source: str | Path, batch_size: int, seed: int = 0) -> Stream:
    """The samples of a `.jsonl` or `.parquet` file, or what a function `file.py:name` or `module:name` gives.

    The function is called once for every pass, without arguments, and returns batches (any iterable, a `DataLoader`),
    each of which is what `verifier.inputs.function` may return. What it draws is drawn from random states that `seed`
    and a batch's number set.

    Raises:
        DataError: It cannot be read.
        SourceError: There is no such function, it takes arguments, or it raised.
    """
    text = str(source)
    kind = _FILES.get(Path(text).suffix.lower())
    if kind is not None:
        return Stream(Indexed(kind(Path(text)), batch_size, f"samples of {Path(text).name}"))
    if ":" not in text:
        raise DataError(
            f"{text} is neither a file of samples ({', '.join(_FILES)}) nor a function that gives batches, as "
            "file.py:batches"
        )
    return Stream(Called(text, seed))


def streamed_images(
    directory: str | Path,
    batch_size: int,
    image_size: int,
    candidate: str | None = None,
    seed: int = 0,
    *,
    whole: bool = True,
) -> Stream | None:
    """The photographs of a directory as `images` prepares them, in batches; None where they are few.

    The candidate's preprocessing is compared on all: stage by stage on the first batch, by the final tensor on
    the others (not with `whole` False), and stage by stage where that differs. The candidate is then given its own
    tensors of all.

    Raises:
        UsageError: As `images`.
        DataError: A photograph cannot be read, once it is reached.
    """
    files, origin = photographs(directory)
    if len(files) <= max(HELD, batch_size):
        return None
    head = images(directory, batch_size, image_size, candidate, seed)
    if whole and candidate is not None and head.other is None:
        likeness = Likeness(Photographs(tuple(files), image_size, candidate, seed))
        chosen = [
            files[number] for number in _unlike(Indexed(likeness, batch_size, origin), len(head.args[0]))
        ]
        if chosen:
            shown = prepared_alike(
                [*files[:batch_size], *chosen[:_SHOWN]], origin, image_size, candidate, seed
            )
            head = replace(sample(shown, batch_size), preprocessing=shown.preprocessing, info=head.info)
        head = replace(head, preprocessing=_of_all(head.preprocessing, len(files), len(chosen)))
    found = Photographs(
        tuple(files), image_size, candidate if head.other is not None and candidate is not None else "", seed
    )
    return Stream(Indexed(found, batch_size, origin), head)


def _unlike(source: Indexed, first: int) -> list[int]:
    """The numbers of the samples, from `first` on, that `Likeness` says no of; the ranks share the work."""
    team = ranks()
    wanted = share(team, source.batches or 0)

    def own() -> list[int]:
        found = []
        for _, offset, batch in source.read(lambda number: number > 0 and wanted(number)):
            found += [offset + k for k in (~batch.args[0]).nonzero()[:, 0].tolist()]
        return found

    return sorted(number for each in team.together(own) for number in each if number >= first)


def _of_all(record: Preprocessing | None, count: int, unlike: int) -> Preprocessing | None:
    if record is None:
        return None
    said = f"the tensors of all {count:,} photographs were compared, the stages on those that are listed"
    if unlike > _SHOWN:
        said += f" ({unlike:,} behind the first batch differ)"
    return msgspec.structs.replace(record, notes=(*record.notes, said))


class Called:
    """A source of the batches that a user's function gives, which is called for every pass.

    Attributes:
        samples: None, since only reading tells.
        batches: How many there are, where what it returns has a length.
        origin: What to call it.
        identity: Empty, likewise.
        readers: None: it is called in this process.
    """

    identity = ""
    readers = 0

    def __init__(self, spec: str, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self.samples: int | None = None
        self.batches: int | None = None
        self.origin = f"batches from {spec}"

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        """The batches of the numbers that are wanted, each with its number and its first sample's.

        Raises:
            DataError: The function gives something else, or fails on the way.
        """
        made = self._made()
        self.batches = len(made) if isinstance(made, Sized) else None
        batches: Iterator[Any] | None = None
        offset = 0
        for number in count():
            heartbeat.stage(f"reading {self.origin}")
            with preserved(), undisturbed(), torch.no_grad(), translating(self._failing):
                seed_all((self._seed + number) % 2**31)  # whatever the models have drawn meanwhile
                batches = iter(made) if batches is None else batches
                each = next(batches, _END)
            if each is _END:
                self.batches = number
                return
            found = described(*as_arguments(each, f"batch {number} of {self._spec}"), self.origin)
            if wanted(number):
                yield number, offset, found
            offset += batch_size(found)

    def _made(self) -> Iterable[Any]:
        with preserved(), undisturbed(), torch.no_grad(), specs.holding(self._spec) as found:
            made: Any = found
            if not isinstance(found, Iterable) and callable(found):
                made = specs.called(found, self._spec, self._seed)
        if isinstance(made, torch.Tensor | Mapping | str) or not isinstance(made, Iterable):
            more = "; put it into a DataLoader" if isinstance(made, Dataset) else ""
            raise DataError(
                f"{self._spec} gives a {type(made).__name__}, where an iterable of batches is needed{more}."
            )
        return made

    def name(self, sample: int) -> str:
        """Its number, which is all that is known."""
        return f"sample {sample}"

    def _failing(self, error: BaseException) -> DataError:
        return DataError(f"{self._spec} raised while it gave its batches: {account(error)}")
