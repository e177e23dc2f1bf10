"""What was recorded of passes that a process of its own has driven: what is said of them, and their arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.certificates import file
from verifier.certificates.arrays import arrays_of, recording_of
from verifier.certificates.content import (
    GraphRecord,
    InputRecord,
    RecordingRecord,
    WeightRecord,
    is_digest,
    of_graph,
    of_recording,
)
from verifier.records import Environment, ModelInfo, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from torch import Tensor

    from verifier.certificates.arrays import Recording

LIVE_VERSION = 1
KEY = "live recording"
_MOST = 999  # passes


class GivenRecord(Record, frozen=True, kw_only=True):
    """A tensor that went into a pass: its place among the arguments, and SHA-256 of dtype, shape and bits."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    digest: str


class PassRecord(Record, frozen=True, kw_only=True):
    """One forward pass.

    Attributes:
        graph: Which of the graphs it ran.
        inputs: What it was given; kept where that is small.
        given: The tensors among that, one by one, as they were before the pass.
        recording: The tensors of its sites, outputs and written states.
        training: Whether the model was in training mode.
        gradients: Whether gradients were on.
        chance: SHA-256 of where torch's random numbers of the CPU stood.
        changed: Digests of the parameters and buffers that were others than in the first pass, by name.
    """

    graph: int
    inputs: InputRecord
    given: tuple[GivenRecord, ...]
    recording: RecordingRecord
    training: bool
    gradients: bool
    chance: str
    changed: dict[str, str]


class LiveContent(Record, frozen=True, kw_only=True):
    """All that such a file says but its arrays.

    Attributes:
        model: The model.
        tensors: Its parameters and buffers, as they were before the first pass.
        graphs: What the passes did, each graph once.
        passes: The passes, in their order.
        asked: How many passes were to be recorded.
        sample: Of tensors of more elements only so many were read, by `verifier.certificates.sampled`; None for all.
        unseen: What could not be seen, in sentences.
        environment: Where it ran.
        created: When it was written.
    """

    schema_version: int = LIVE_VERSION
    model: ModelInfo
    tensors: tuple[WeightRecord, ...]
    graphs: tuple[GraphRecord, ...]
    passes: tuple[PassRecord, ...]
    asked: int
    sample: int | None
    unseen: tuple[str, ...]
    environment: Environment
    created: str


@dataclass(frozen=True)
class Live:
    """A recording of passes, with their arrays; `inputs` are the tensors that are kept, for each pass."""

    content: LiveContent
    recordings: Sequence[Recording]
    inputs: Sequence[Sequence[Tensor]]
    digest: str = ""
    source: str = ""

    def save(self, path: str | PathLike[str]) -> None:
        """Write it, a safetensors file: all of it at once or, whatever happens, nothing.

        Raises:
            OutputError: It cannot be written.
        """
        file.write(Path(path), self.encoded())

    def encoded(self) -> bytes:
        """The file's bytes."""
        tensors: dict[str, Tensor] = {}
        for k, recording in enumerate(self.recordings):
            tensors |= arrays_of(recording, str(k))
            tensors |= {f"{k}/inputs/{n}": tensor for n, tensor in enumerate(self.inputs[k])}
        return file.encoded(self.content, tensors, KEY)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Live:
        """Read what `verifier.recording` has written.

        Raises:
            CertificateError: It is none, damaged, or of a later version.
        """
        content, tensors, digest = file.decoded_as(_LIVE, Path(path))
        recordings = [recording_of(each.recording, tensors, str(k)) for k, each in enumerate(content.passes)]
        inputs = [
            [
                tensors[f"{k}/inputs/{n}"]
                for n in range(len(each.given) if each.inputs.structure is not None else 0)
            ]
            for k, each in enumerate(content.passes)
        ]
        return cls(content, recordings, inputs, digest, str(path))

    @property
    def told(self) -> str:
        """What was recorded, in a line."""
        passes, record = len(self.content.passes), self.content.passes[0].recording
        some = "" if passes == self.content.asked else f" of {self.content.asked}"
        return f"{self.content.model.type}: {passes}{some} passes, {len(record.sites)} sites in {record.cell}"


def is_live(path: str | PathLike[str]) -> bool:
    """Whether a file says that it is a recording of passes."""
    return file.called(Path(path)) == KEY


def contradictions(content: LiveContent) -> Iterator[str]:
    """Each thing that cannot be as it is."""
    names = {each.name for each in content.tensors}
    if len(names) < len(content.tensors):
        yield "two tensors have one name"
    for each in content.tensors:
        if not (is_digest(each.digest) and is_digest(each.own)):
            yield f"the digest of {each.name!r} is no SHA-256"
        if any(size < 0 for size in each.shape) or each.stored or each.drawn is not None:
            yield f"what is said of {each.name!r} is not said of a live model"
    if content.sample is not None and content.sample < 1:
        yield "sample is no number of elements"
    for graph in content.graphs:
        yield from of_graph(graph)
        if set(graph.tensors) != names:
            yield "tensors are not those of the graphs"
    if not 0 < len(content.passes) <= min(content.asked, _MOST):
        yield "there are no passes, or more than were asked for"
    for k, ran in enumerate(content.passes):
        if not 0 <= ran.graph < len(content.graphs):
            yield f"passes[{k}].graph is not there"
            return
        yield from of_recording(ran.recording, content.graphs[ran.graph], f"passes[{k}].recording")
        if not is_digest(ran.chance) or not all(map(is_digest, ran.changed.values())):
            yield f"passes[{k}] has a digest that is no SHA-256"
        if not set(ran.changed) <= names:
            yield f"passes[{k}].changed names tensors that are not there"
        yield from _of_given(ran, f"passes[{k}]")


def _of_given(record: PassRecord, path: str) -> Iterator[str]:
    info = record.inputs.info
    shapes, dtypes = tuple(g.shape for g in record.given), tuple(g.dtype for g in record.given)
    if shapes != info.shapes or dtypes != info.dtypes:
        yield f"{path}.given are not the inputs"
    if not is_digest(info.digest) or not all(is_digest(g.digest) for g in record.given):
        yield f"{path} has inputs whose digest is no SHA-256"
    if any(size < 0 for shape in shapes for size in shape):
        yield f"{path} has inputs of a negative shape"


def _arrays(content: LiveContent) -> file.Expected:
    expected: file.Expected = {}
    for k, each in enumerate(content.passes):
        expected |= file.of_recording(each.recording, str(k))
        expected |= file.of_inputs(each.inputs, f"{k}/inputs")
    return expected


_LIVE = file.Kind(KEY, LiveContent, LIVE_VERSION, contradictions, _arrays)
