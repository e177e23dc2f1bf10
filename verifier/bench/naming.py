"""What samples are called, in results of samples that were streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier.inputs.samples import batch_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.inputs import Stream
    from verifier.records import CellResult, OutputAgreement, PairResult


def with_names(results: Sequence[CellResult], stream: Stream | None) -> tuple[CellResult, ...]:
    """The results of all cells, where what is told of single samples has their names."""
    return tuple(results) if stream is None else tuple(_named(each, stream) for each in results)


def _named(cell: CellResult, stream: Stream) -> CellResult:
    if cell.role == "semantics":  # float64 numbers its few samples anew
        return cell
    rows = {row.index: _row(row, stream) for row in cell.layers}
    first = cell.first_divergence
    return replace(
        cell,
        layers=tuple(rows.values()),
        culprits=tuple(rows.get(row.index, row) for row in cell.culprits),
        first_divergence=None if first is None else rows.get(first.index, first),
        output=None if cell.output is None else _output(cell.output, stream),
    )


def _row(row: PairResult, stream: Stream) -> PairResult:
    error = row.total
    if error is None or not error.max_abs or not error.max_abs_index:
        return row
    if row.shape[:1] != (batch_size(stream.head),) or row.kind not in ("site", "output"):
        return row
    return replace(row, sample=stream.name(error.max_abs_index[0]))


def _output(found: OutputAgreement, stream: Stream) -> OutputAgreement:
    errors = found.sample_errors
    return replace(
        found,
        flips=tuple(replace(flip, name=stream.name(flip.sample)) for flip in found.flips),
        sample_errors=None if errors is None else replace(errors, name=stream.name(errors.worst)),
    )
