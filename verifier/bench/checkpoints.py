"""What an unfinished run has measured, in a file: a later one goes on from there, on as many ranks as it likes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from ddsketch import DDSketch, mapping, store

from verifier.bench.batched import Batched, Run
from verifier.border import whole_files
from verifier.border.error_texts import first_line
from verifier.errors import OutputError, UsageError
from verifier.inputs import named
from verifier.inputs.tally import Tally
from verifier.lockstep import Meeting
from verifier.metrics import Moments
from verifier.metrics.agreement import PARTS
from verifier.metrics.frame import Frame
from verifier.metrics.merging import Merging
from verifier.records import Flip, InputRange
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.bench.bench import Bench
    from verifier.inputs import Stream
    from verifier.ranks import Ranks

_FORMAT = "1"  # of what is kept: another one is another comparison

EVERY = 120.0
"""Seconds between two checkpoints."""

# All that may stand in one: loading it runs nothing else.
_SAFE: list[Any] = [
    *PARTS,
    Batched,
    DDSketch,
    Flip,
    Frame,
    InputRange,
    Meeting,
    Moments,
    Run,
    Tally,
    frozenset,
    mapping.LogarithmicMapping,
    InputRange(name="", dtype="", low=None, high=None).__reduce__()[0],  # which makes a record again
    store.DenseStore,
    store._NegativeIntInfinity,
    store._PositiveIntInfinity,
]

_Nodes = dict[tuple[int, int], Batched]


def comparison(bench: Bench, inputs: Stream) -> str:
    """A name for what is compared: the programs, their weights, the samples, torch."""
    hasher = Hasher()
    masters = bench.subject.masters
    parts = [
        *(
            str([(site.name, site.op) for site in bench.graph(side).sites])
            for side in ("baseline", "candidate")
        ),
        *(hasher.of_all(each.items()) for each in (masters.baseline, masters.candidate)),
        hasher.of_all(named(inputs.head)),
        inputs.identity,
        str(bench.alignment.pairs),
        torch.__version__,
        _FORMAT,
    ]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()


class Checkpoint:
    """The passes of a run, by what each measures.

    Every rank writes a file of its own, the first one `file`, the others with their number behind it. What is read is
    taken together, whoever wrote it: a batch that stands in several counts once.
    """

    def __init__(self, file: Path, every: float = EVERY) -> None:
        self.file = file
        self._every = every
        self._passes: dict[str, _Nodes] | None = None
        self._of = ""
        self._asked: Counter[str] = Counter()
        self._saved = time.monotonic()

    def begin(self, of: str, what: str, team: Ranks) -> tuple[str, Merging[Batched]]:
        """The name of a pass, and what is known of it already; all ranks call this together.

        Raises:
            UsageError: The file is none of this comparison.
            OutputError: It cannot be read.
        """
        if self._passes is None:
            self._of = of
            self._passes = {}
            if team.leads:
                whole_files.sweep(self.file)
            found: dict[str, Merging[Batched]] = {}
            for every in team.together(self._read):
                for name, nodes in every:
                    found.setdefault(name, Merging()).absorb(Merging(nodes))
            self._passes = {name: each.nodes for name, each in found.items()}
        name = f"{of} {what}"
        self._asked[name] += 1
        name = f"{name} {self._asked[name]}"
        return name, Merging(self._passes.get(name))

    def keep(
        self, name: str, known: Merging[Batched], mine: Merging[Batched], team: Ranks, *, now: bool = False
    ) -> None:
        """Write what was known of a pass and what this rank has added, unless that was done shortly before.

        Raises:
            OutputError: It cannot be written.
        """
        if not now and time.monotonic() - self._saved < self._every:
            return
        assert self._passes is not None  # noqa: S101 - a pass has begun
        merged = Merging(known.nodes)
        merged.absorb(mine)
        self._passes[name] = merged.nodes
        self._write(self.file if team.leads else self.file.with_name(f"{self.file.name}.{team.rank}"))
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Remove all files: the run has a result."""
        for each in self._files():
            each.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        others = self.file.parent.glob(f"{self.file.name}.*")
        numbered = [each for each in others if each.name.removeprefix(f"{self.file.name}.").isdecimal()]
        return [each for each in (self.file, *sorted(numbered)) if each.is_file()]

    def _read(self) -> list[tuple[str, _Nodes]]:
        found: list[tuple[str, _Nodes]] = []
        for each in self._files():
            try:
                with torch.serialization.safe_globals(_SAFE):
                    content: Any = torch.load(each, map_location="cpu", weights_only=True)
                of, passes = content["of"], content["passes"]
            except Exception as error:
                raise OutputError(f"{each} cannot be read as a checkpoint: {first_line(error)}") from error
            if of != self._of:
                raise UsageError(
                    f"{each} is a checkpoint of another comparison: of other models, weights or samples. Remove it, "
                    "or name another file."
                )
            found += passes.items()
        return found

    def _write(self, file: Path) -> None:
        content = {"of": self._of, "passes": self._passes}
        file.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write(file, lambda stream: torch.save(content, stream))
