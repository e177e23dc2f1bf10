"""A certificate in memory: what it says, and its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.certificates import file
from verifier.certificates.arrays import arrays_of, recording_of
from verifier.certificates.keeping import Kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from torch import Tensor

    from verifier.certificates.arrays import Recording
    from verifier.certificates.content import Content

SUFFIX = ".safetensors"


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

    @property
    def blind(self) -> str:
        """A sentence where nothing can be compared with a recording, empty otherwise."""
        for each in self.recordings:
            first = len(each.record.sites)
            moments = [row.moments for row in each.summaries[first : first + len(each.record.outputs)]]
            if any(0 < each.numbers == each.masked for each in moments):
                return (
                    f"not one number of an output is finite in {each.record.cell}, so that nothing will match "
                    "this certificate: look at the weights and the inputs first."
                )
        return ""

    def encoded(self) -> bytes:
        """The file's bytes."""
        names = {each.name: k for k, each in enumerate(self.content.tensors)}
        tensors: dict[str, Tensor] = {
            f"weights/{names[name]}": tensor for name, tensor in self.weights.items()
        }
        tensors |= {f"inputs/{k}": tensor for k, tensor in enumerate(self.inputs)}
        for k, recording in enumerate(self.recordings):
            tensors |= arrays_of(recording, str(k))
        return file.encoded(self.content, tensors)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Certificate:
        """Read a certificate.

        Raises:
            CertificateError: It is none, damaged, or of a later version.
        """
        content, tensors, digest = file.decoded(Path(path))
        recordings = [recording_of(record, tensors, str(k)) for k, record in enumerate(content.recordings)]
        weights = {
            each.name: tensors[f"weights/{k}"] for k, each in enumerate(content.tensors) if each.stored
        }
        count = sum(name.startswith("inputs/") for name in tensors)
        inputs = [tensors[f"inputs/{k}"] for k in range(count)]
        return cls(content, recordings, weights, inputs, digest, str(path), Kept.found(Path(path)))
