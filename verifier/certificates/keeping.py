"""Tensors kept in full beside a certificate: a folder with a safetensors file a site, of the run in float64.

Each is written by itself, at once, and read by itself: memory is that of the largest, whatever their number, and what
a killed process has written need not be written again. A file counts only if its bits are those that the certificate
has recorded, so that nothing else says which certificate a folder belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.certificates import file
from verifier.certificates.summary import bits_of
from verifier.errors import CertificateError, OutputError
from verifier.graph.tensors import dense
from verifier.weights.patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from verifier.graph import Graph

_NAME = "tensor"


@dataclass(frozen=True)
class Kept:
    """A folder of tensors kept in full."""

    folder: Path

    @classmethod
    def beside(cls, certificate: Path) -> Kept:
        """The folder of a certificate's file, `net.full` for `net.safetensors`."""
        return cls(certificate.with_suffix(".full"))

    @classmethod
    def found(cls, certificate: Path) -> Kept | None:
        """The folder of a certificate's file, if there is one."""
        kept = cls.beside(certificate)
        return kept if kept.folder.is_dir() else None

    def keep(self, site: int, tensor: Tensor, bits: tuple[int, ...]) -> None:
        """Keep a site's tensor, unless that is kept already.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.torch import save  # noqa: PLC0415 - only this needs it

        if not file.storable(tensor) or self.tensor(site, bits) is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be made: {error.strerror or error}.") from error
        file.write(self._path(site), save({_NAME: dense(tensor).detach().cpu().contiguous()}))

    def tensor(self, site: int, bits: tuple[int, ...]) -> Tensor | None:
        """What is kept of a site, on the CPU; None where nothing is whose bits are these."""
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415

        try:
            with safe_open(self._path(site), framework="pt") as opened:
                found: Tensor = opened.get_tensor(_NAME)
        except (OSError, SafetensorError, ValueError):
            return None
        return found if bits_of(found) == bits else None

    def _path(self, site: int) -> Path:
        return self.folder / f"{site:05d}.safetensors"


def chosen(graph: Graph, patterns: Iterable[str]) -> frozenset[int]:
    """The comparable sites whose names match one of some patterns.

    Raises:
        CertificateError: A pattern matches none.
    """
    found: set[int] = set()
    for text in patterns:
        pattern = Pattern(text)
        own = {site.index for site in graph.comparable if pattern.stars(site.name) is not None}
        if not own:
            names = ", ".join(site.name for site in graph.comparable[:3])
            raise CertificateError(f"no site is called {text}; there are {names}, ... (** stands for all)")
        found |= own
    return frozenset(found)
