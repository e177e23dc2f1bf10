"""A certificate in memory: what it says, and its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from verifier.certificates import file
from verifier.certificates.keeping import Kept
from verifier.certificates.summary import Moments, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from torch import Tensor

    from verifier.certificates.content import Content, RecordingRecord

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Recording:
    """One run: what is said of it, a summary for each row, and outputs that are kept in full, by position."""

    record: RecordingRecord
    summaries: tuple[Summary, ...]
    outputs: Mapping[int, Tensor]


@dataclass(frozen=True)
class Certificate:
    """A model's run, recorded.

    `weights` are the tensors that could not be drawn anew, by name; `inputs` those that went in, where they are kept,
    in order. `digest` is the SHA-256 of the file, empty before it is saved, and `source` its name. `full` is where
    tensors are kept in full, if any are.
    """

    content: Content
    recordings: Sequence[Recording]
    weights: Mapping[str, Tensor]
    inputs: Sequence[Tensor]
    digest: str = ""
    source: str = ""
    full: Kept | None = None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the certificate, a safetensors file: all of it at once or, whatever happens, nothing.

        Raises:
            OutputError: It cannot be written.
        """
        file.write(Path(path), self.encoded())

    def told(self, path: str | PathLike[str]) -> str:
        """One line on a saved certificate."""
        content, size = self.content, Path(path).stat().st_size
        cells = ", ".join(sorted(each.record.cell for each in self.recordings))
        sites = len(self.recordings[0].record.sites)
        parent = f", in the place of {content.parent[:12]}" if content.parent else ""
        return f"{path}: {content.model.spec}, {sites} sites in {cells}, {size / 1e6:.2f} MB{parent}\n"

    def encoded(self) -> bytes:
        """The file's bytes."""
        names = {each.name: k for k, each in enumerate(self.content.tensors)}
        tensors: dict[str, Tensor] = {
            f"weights/{names[name]}": tensor for name, tensor in self.weights.items()
        }
        tensors |= {f"inputs/{k}": tensor for k, tensor in enumerate(self.inputs)}
        for k, recording in enumerate(self.recordings):
            rows = recording.summaries
            for name, found in {
                "bits": [row.bits for row in rows],
                "masks": [row.mask for row in rows],
                "moments": [tuple(row.moments) for row in rows],
                "histograms": [row.histogram for row in rows],
                "sketches": [row.sketch for row in rows],
            }.items():
                rest, dtype = file.ARRAYS[name]
                array = np.array(found).reshape(len(rows), *rest)
                tensors[f"{k}/{name}"] = torch.from_numpy(array).to(dtype)
            tensors |= {f"{k}/full/{n}": tensor for n, tensor in recording.outputs.items()}
        return file.encoded(self.content, tensors)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Certificate:
        """Read a certificate.

        Raises:
            CertificateError: It is none, damaged, or of a later version.
        """
        content, tensors, digest = file.decoded(Path(path))
        recordings = []
        for k, record in enumerate(content.recordings):
            arrays = [tensors[f"{k}/{name}"].numpy() for name in file.ARRAYS]
            rows = tuple(
                Summary(
                    bits=tuple(bits.tolist()),
                    mask=tuple(mask.tolist()),
                    moments=Moments(int(moments[0]), int(moments[1]), *map(float, moments[2:])),
                    histogram=histogram,
                    sketch=sketch,
                )
                for bits, mask, moments, histogram, sketch in zip(*arrays, strict=True)
            )
            outputs = {n: tensors[f"{k}/full/{n}"] for n, each in enumerate(record.outputs) if each.stored}
            recordings.append(Recording(record, rows, outputs))
        weights = {
            each.name: tensors[f"weights/{k}"] for k, each in enumerate(content.tensors) if each.stored
        }
        count = sum(name.startswith("inputs/") for name in tensors)
        inputs = [tensors[f"inputs/{k}"] for k in range(count)]
        return cls(content, recordings, weights, inputs, digest, str(path), Kept.found(Path(path)))
