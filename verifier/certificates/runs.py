"""Runs that were recorded, one like the other: cells of a certificate, and passes that a process of its own drove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from verifier.cells import Cell
from verifier.certificates.certificate import Certificate
from verifier.certificates.content import as_graph
from verifier.certificates.live import GivenRecord, Live, is_live
from verifier.certificates.sampled import sampled
from verifier.errors import CertificateError
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from verifier.certificates.arrays import Recording
    from verifier.certificates.content import InputRecord, WeightRecord
    from verifier.graph import Graph
    from verifier.records import Environment, ModelInfo


@dataclass(frozen=True)
class Run:
    """One recorded run.

    Attributes:
        model: The model.
        tensors: Its parameters and buffers, as it computed with them.
        graph: What it did.
        inputs: What it was given, and `kept` the tensors among that, if the file has them.
        given: The same tensors one by one; None where only their common digest is known.
        recording: Its tensors.
        sample: How many elements of a larger tensor were read; None for all.
        mode: Whether it was in training mode, and whether gradients were on; None where that was not noted.
        chance: Where random numbers stood; empty where that was not noted.
        unseen: What could not be seen.
        environment: Where it ran, and `created` when.
        source: The file, `digest` its SHA-256 and `parent` that of the file it took the place of.
        weights: A certificate's mode; `as-is` for others.
    """

    model: ModelInfo
    tensors: Mapping[str, WeightRecord]
    graph: Graph
    inputs: InputRecord
    kept: Sequence[Tensor]
    given: tuple[GivenRecord, ...] | None
    recording: Recording
    sample: int | None
    mode: tuple[bool, bool] | None
    chance: str
    unseen: tuple[str, ...]
    environment: Environment
    created: str
    source: str
    digest: str
    parent: str
    weights: str

    @property
    def cell(self) -> Cell:
        """The setting it ran in."""
        return Cell.parse(self.recording.record.cell)

    def reads(self, shape: Sequence[int]) -> int | None:
        """How many elements were read of a site's tensor of this shape; None for all of them."""
        return self.sample if sampled(shape, self.sample) else None


def opened(recorded: Certificate | Live | str | Path) -> Certificate | Live:
    """A recording of either kind, from its file if need be.

    Raises:
        CertificateError: There is none that can be used.
    """
    if isinstance(recorded, Certificate | Live):
        return recorded
    return Live.load(recorded) if is_live(recorded) else Certificate.load(recorded)


def runs_of(recorded: Certificate | Live) -> list[Run]:
    """What was recorded: the passes in their order, or the cells."""
    return list(_passes(recorded) if isinstance(recorded, Live) else _cells(recorded))


def _passes(live: Live) -> Iterator[Run]:
    content = live.content
    graphs = [as_graph(graph) for graph in content.graphs]
    for record, recording, kept in zip(content.passes, live.recordings, live.inputs, strict=True):
        yield Run(
            model=content.model,
            tensors={
                each.name: msgspec.structs.replace(each, digest=record.changed.get(each.name, each.digest))
                for each in content.tensors
            },
            graph=graphs[record.graph],
            inputs=record.inputs,
            kept=kept,
            given=record.given,
            recording=recording,
            sample=content.sample,
            mode=(record.training, record.gradients),
            chance=record.chance,
            unseen=content.unseen,
            environment=content.environment,
            created=content.created,
            source=live.source,
            digest=live.digest,
            parent="",
            weights="as-is",
        )


def _cells(certificate: Certificate) -> Iterator[Run]:
    content = certificate.content
    graph, hasher = as_graph(content.graph), Hasher()
    given = tuple(
        GivenRecord(
            name="",
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            digest=hasher.of_all([("", tensor)]),
        )
        for tensor in certificate.inputs
    )
    for recording in certificate.recordings:
        yield Run(
            model=content.model,
            tensors={each.name: each for each in content.tensors},
            graph=graph,
            inputs=content.inputs,
            kept=certificate.inputs,
            given=given or None,
            recording=recording,
            sample=None,
            mode=(False, False),
            chance="",
            unseen=(),
            environment=content.environment,
            created=content.created,
            source=certificate.source,
            digest=certificate.digest,
            parent=content.parent,
            weights=content.weights,
        )


def fitting(baseline: list[Run], candidate: list[Run]) -> list[tuple[Run, Run]]:
    """The runs that are compared: pass with pass, a certificate's cell with the one that a pass ran in.

    Raises:
        CertificateError: There are none.
    """
    live = [runs[0].chance != "" for runs in (baseline, candidate)]
    if all(live):
        return list(zip(baseline, candidate, strict=False))
    if not any(live):
        raise CertificateError(
            "both are certificates, and each was made by itself: give the candidate, or record it while it runs "
            "(verifier.recording)."
        )
    found = []
    for k, run in enumerate(candidate if live[1] else baseline):
        others = baseline if live[1] else candidate
        twin = next((each for each in others if each.cell.dtype == run.cell.dtype), None)
        if twin is not None:
            found.append((twin, run) if live[1] else (run, twin))
        elif not k:
            names = ", ".join(sorted(each.recording.record.cell for each in others))
            source = others[0].source or "the certificate"
            raise CertificateError(f"{source} holds {names}, and the pass ran in {run.cell.dtype}.")
    return found[:1]
