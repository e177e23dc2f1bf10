"""All that a certificate says but its arrays. What was read from outside is checked here."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from verifier.cells import Cell
from verifier.errors import UsageError
from verifier.graph.conditions import Conditions
from verifier.graph.sites import UNTRACED, Call, Graph, Site, TensorUse
from verifier.records import Environment, InputInfo, ModelInfo, NoiseFloor, Record, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CERTIFICATE_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{64}")


class UseRecord(Record, frozen=True, kw_only=True):
    """A parameter or buffer that a site reads; see `verifier.graph.TensorUse`."""

    role: str
    name: str
    shape: tuple[int, ...]


class SiteRecord(Record, frozen=True, kw_only=True):
    """A site; see `verifier.graph.Site`. In `attributes` tuples are lists, and what is not finite `{"float": "inf"}`.

    `source` says where in the model's program the call was made, if that is known.
    """

    name: str
    op: str
    scope: str
    output: int
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[int, ...] = ()
    operands: tuple[int | None, ...] = ()
    tensors: tuple[UseRecord, ...] = ()
    attributes: dict[str, Any] = {}
    inplace: bool = False
    identity: bool = False
    live: bool = True
    aliases_state: bool = False
    source: Source | None = None


class CallRecord(Record, frozen=True, kw_only=True):
    """A call; see `verifier.graph.Call`."""

    scope: str
    op: str
    first: int
    count: int


class GraphRecord(Record, frozen=True, kw_only=True):
    """A graph; see `verifier.graph.Graph`."""

    sites: tuple[SiteRecord, ...]
    calls: tuple[CallRecord, ...]
    outputs: tuple[int, ...]
    inputs: int
    tensors: dict[str, tuple[int, ...]]
    suspendable: bool = True
    writes_inputs: bool = False
    writes_state: tuple[str, ...] = ()
    draws: bool = False
    output_names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()


class WeightRecord(Record, frozen=True, kw_only=True):
    """A parameter or buffer of the recorded model.

    Attributes:
        name: Its qualified name.
        dtype: Its dtype, without `torch.`.
        shape: Its shape.
        digest: SHA-256 of dtype, shape and bits of what the run computed with.
        own: The same of what the model held itself.
        constant: Whether what the model held is one value throughout, so that it tells nothing apart.
        learnt: Whether it is a parameter or a running statistic, not a constant of the program.
        drawn: Mean and spread of the numbers that took its place (`drawing`); None where none did.
        stored: Whether the file holds what the run computed with.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    own: str
    constant: bool = False
    learnt: bool = True
    drawn: tuple[float, float] | None = None
    stored: bool = False


class TensorRecord(Record, frozen=True, kw_only=True):
    """An output or a written state: its name, shape, dtype, and whether the file holds it in full."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: bool = False


class InputRecord(Record, frozen=True, kw_only=True):
    """What the model was given: the tensors, or a recipe (`normal 8 224 0`), or where they came from and a digest.

    `structure` holds the arguments where the file holds the tensors: JSON values, `{"tensor": k}` for the k-th
    tensor, `{"list": [...]}`, `{"tuple": [...]}` and `{"dict": {...}}`; None where it does not.
    """

    info: InputInfo
    batch_dim: int | None = 0
    recipe: str = ""
    structure: dict[str, Any] | None = None


class RecordingRecord(Record, frozen=True, kw_only=True):
    """One run in one cell. The file's arrays have a row for each site, then each output, then each state.

    Attributes:
        cell: The cell's name.
        samples: How many samples went through.
        sites: The sites that were recorded, by index.
        shapes: The shape of each site's tensor in this run.
        outputs: What the model returned.
        states: What it wrote into its own parameters and buffers.
        words: What it returned that is no number, by place.
        noise: For each row, how far the numerics cell is from float64 on a few samples (NRMSE).
        narrowed: Calls, by position, that ran in float32 within float64.
        floor: How far the model is from itself in other circumstances.
    """

    cell: str
    samples: int
    sites: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[TensorRecord, ...]
    states: tuple[TensorRecord, ...] = ()
    words: dict[str, str] = {}
    noise: tuple[float, ...] = ()
    narrowed: tuple[int, ...] = ()
    floor: NoiseFloor | None = None

    @property
    def rows(self) -> int:
        """How many rows its arrays have."""
        return len(self.sites) + len(self.outputs) + len(self.states)


class Content(Record, frozen=True, kw_only=True):
    """All that a certificate says but its arrays. `parent` is the SHA-256 of the file it takes the place of."""

    schema_version: int = CERTIFICATE_VERSION
    model: ModelInfo
    weights: str
    seed: int
    tensors: tuple[WeightRecord, ...]
    graph: GraphRecord
    inputs: InputRecord
    recordings: tuple[RecordingRecord, ...]
    environment: Environment
    created: str
    command: str = ""
    parent: str = ""
    by_sample: bool = True


def as_record(graph: Graph) -> GraphRecord:
    """A graph as a record."""
    conditions = graph.conditions or Conditions((), frozenset())
    return GraphRecord(
        sites=tuple(
            SiteRecord(
                name=site.name,
                op=site.op,
                scope=site.scope,
                output=site.output,
                shape=site.shape,
                dtype=site.dtype,
                inputs=site.inputs,
                operands=site.operands,
                tensors=tuple(UseRecord(role=u.role, name=u.name, shape=u.shape) for u in site.tensors),
                attributes={name: _packed(value) for name, value in site.attributes.items()},
                inplace=site.inplace,
                identity=site.identity,
                live=site.live,
                aliases_state=site.aliases_state,
                source=site.source,
            )
            for site in graph.sites
        ),
        calls=tuple(
            CallRecord(scope=call.scope, op=call.op, first=call.first, count=call.count)
            for call in graph.calls
        ),
        outputs=graph.outputs,
        inputs=graph.inputs,
        tensors=dict(graph.tensors),
        suspendable=graph.suspendable,
        writes_inputs=graph.writes_inputs,
        writes_state=tuple(sorted(graph.writes_state)),
        draws=graph.draws,
        output_names=graph.output_names,
        shapes=conditions.shapes,
        dtypes=tuple(sorted(conditions.dtypes)),
    )


def as_graph(record: GraphRecord) -> Graph:
    """The graph that a record says."""
    return Graph(
        sites=tuple(
            Site(
                index=index,
                name=site.name,
                op=site.op,
                scope=site.scope,
                output=site.output,
                shape=site.shape,
                dtype=site.dtype,
                inputs=site.inputs,
                operands=site.operands,
                tensors=tuple(TensorUse(u.role, u.name, u.shape) for u in site.tensors),
                attributes={name: _unpacked(value) for name, value in site.attributes.items()},
                inplace=site.inplace,
                identity=site.identity,
                live=site.live,
                aliases_state=site.aliases_state,
                source=site.source,
            )
            for index, site in enumerate(record.sites)
        ),
        calls=tuple(Call(call.scope, call.op, call.first, call.count) for call in record.calls),
        outputs=record.outputs,
        inputs=record.inputs,
        tensors=record.tensors,
        suspendable=record.suspendable,
        writes_inputs=record.writes_inputs,
        writes_state=frozenset(record.writes_state),
        draws=record.draws,
        output_names=record.output_names,
        conditions=Conditions(record.shapes, frozenset(record.dtypes)),
    )


def _packed(value: object) -> object:
    if isinstance(value, tuple):
        return [_packed(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _unpacked(value: Any) -> object:
    if isinstance(value, list):
        return tuple(_unpacked(each) for each in value)
    return float(value["float"]) if isinstance(value, dict) else value


def contradictions(content: Content) -> Iterator[str]:
    """Each thing that cannot be as it is."""
    yield from of_graph(content.graph)
    names = [each.name for each in content.tensors]
    if set(names) != set(content.graph.tensors) or len(set(names)) < len(names):
        yield "tensors are not those of the graph, each once"
    for each in content.tensors:
        if not (is_digest(each.digest) and is_digest(each.own)):
            yield f"the digest of {each.name!r} is no SHA-256"
        if any(size < 0 for size in each.shape):
            yield f"the shape of {each.name!r} is negative"
        if each.drawn is not None and not all(map(math.isfinite, each.drawn)):
            yield f"what was drawn for {each.name!r} is not finite"
    if content.parent and not is_digest(content.parent):
        yield "parent is no SHA-256"
    if not content.recordings:
        yield "there are no recordings"
    cells = [each.cell for each in content.recordings]
    if len(set(cells)) < len(cells):
        yield "two recordings are of one cell"
    for k, recording in enumerate(content.recordings):
        yield from of_recording(recording, content.graph, f"recordings[{k}]")


def of_graph(graph: GraphRecord) -> Iterator[str]:
    """Each thing of a graph that cannot be as it is."""
    count = len(graph.sites)
    after = 0
    for call in graph.calls:
        if call.first != after or call.count < 0:
            yield f"the call of {call.op} does not follow the one before it"
            return
        after += call.count
    if after != count:
        yield "the calls do not make all sites"
    lowest = -graph.inputs
    for k, site in enumerate(graph.sites):
        read = [*site.inputs, *(each for each in site.operands if each is not None)]
        if not all(lowest <= each < count for each in read):
            yield f"graph.sites[{k}] reads a site that is not there"
        if any(use.name not in graph.tensors for use in site.tensors):
            yield f"graph.sites[{k}] uses a tensor that is not there"
        if not all(map(_plain, site.attributes.values())):
            yield f"graph.sites[{k}] has an attribute that is no plain value"
        if any(size < 0 for size in site.shape):
            yield f"graph.sites[{k}] has a negative shape"
    if len({site.name for site in graph.sites}) < count:
        yield "two sites have one name"
    if not all(each == UNTRACED or lowest <= each < count for each in graph.outputs):
        yield "an output comes from a site that is not there"
    if not set(graph.writes_state) <= set(graph.tensors):
        yield "a state that is written is not there"


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return _HEX.fullmatch(text) is not None


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return value in ({"float": "inf"}, {"float": "-inf"}, {"float": "nan"})
    return value is None or isinstance(value, bool | int | float | str)


def of_recording(recording: RecordingRecord, graph: GraphRecord, path: str) -> Iterator[str]:
    """Each thing of a recording that cannot be as it is."""
    try:
        Cell.parse(recording.cell)
    except UsageError as error:
        yield f"{path}.cell: {error}"
    sites = recording.sites
    if list(sites) != sorted(set(sites)) or not all(0 <= each < len(graph.sites) for each in sites):
        yield f"{path}.sites are not sites in order"
    if len(recording.shapes) != len(sites):
        yield f"{path}.shapes are not one a site"
    if len(recording.outputs) != len(graph.outputs):
        yield f"{path}.outputs are not those of the graph"
    if recording.noise and len(recording.noise) != recording.rows:
        yield f"{path}.noise is not one a row"
    if any(not each >= 0 for each in recording.noise):
        yield f"{path}.noise is no distance"
    if any(size < 0 for shape in recording.shapes for size in shape) or recording.samples < 1:
        yield f"{path} has a negative size"
    if not all(0 <= each < len(graph.calls) for each in recording.narrowed):
        yield f"{path}.narrowed names calls that are not there"
    if not {each.name for each in recording.states} <= set(graph.tensors):
        yield f"{path}.states names tensors that are not there"


def shapes_of(content: Content) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the recorded model's parameters and buffers."""
    return {each.name: each.shape for each in content.tensors}
