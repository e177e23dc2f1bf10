"""Where in the two programs what is blamed stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier.records import PairResult, Source, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verifier.align import Alignment
    from verifier.graph import Graph
    from verifier.records import CellResult


def with_sources(cells: Iterable[CellResult], alignment: Alignment) -> tuple[CellResult, ...]:
    """The cells, with the lines of both models at what is blamed: at each site they would be too much to keep.

    That is the first divergence, culprits, and what another policy may make culprits: pairs that amplify, and sites
    without partners.
    """
    return tuple(_located(cell, alignment) for cell in cells)


def _located(cell: CellResult, alignment: Alignment) -> CellResult:
    def at(row: PairResult) -> PairResult:
        return replace(
            row,
            baseline_source=_source(alignment.baseline, "baseline", row, cell.layers),
            candidate_source=_source(alignment.candidate, "candidate", row, cell.layers),
        )

    first = cell.first_divergence
    plain = (Status.OK, Status.CARRIES)
    return replace(
        cell,
        layers=tuple(
            row if row.status in plain and not (first and row.index == first.index) else at(row)
            for row in cell.layers
        ),
        culprits=tuple(map(at, cell.culprits)),
        first_divergence=None if first is None else at(first),
    )


def _source(graph: Graph, side: str, row: PairResult, rows: Sequence[PairResult]) -> Source | None:
    """The line that made a row's tensor on one side, or reads what the other side has there in addition."""
    if row.kind in ("output", "call") and row.position is not None:
        site = graph.outputs[row.position] if row.position < len(graph.outputs) else -1
        return graph.sites[site].source if site >= 0 else None
    if row.kind == "state" and row.above:
        row = rows[row.above[0]]
    name = getattr(row, side)
    if name is None:
        between = "between_candidate" if side == "baseline" else "between_baseline"
        lonely = row.baseline or row.candidate
        readers = (getattr(each, side) for each in rows if lonely in getattr(each, between))
        name = next(filter(None, readers), None)
    found = graph.by_name.get(name or "")
    return None if found is None else found.source
