"""What a summary says of single samples where a whole data set was streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.wording import counted, figure, share

if TYPE_CHECKING:
    from verifier.records import Flip, OutputAgreement, Result

TITLE = "Samples"

_SHOWN = 5


def lines(verification: Result) -> tuple[str, ...]:
    """How the output's error is spread over the samples and which of them flip; nothing of samples that were held."""
    output = verification.output
    if verification.inputs.samples is None or output is None:
        return ()
    return tuple(filter(None, (spread(output), flips(output))))


def few(verification: Result) -> str:
    """Of how many samples the first divergence is told, to stand behind its title; empty where of all.

    Its figures are those of the cell that decides, which may have run on a few alone.
    """
    cell, samples = verification.deciding_cell if verification.cells else None, verification.inputs.samples
    if cell is None or samples is None or cell.batch_size >= samples:
        return ""
    return f", told of {cell.batch_size:,} of {counted(samples, 'sample')} ({cell.name})"


def spread(output: OutputAgreement) -> str:
    """The error of half of the samples, of most and of the worst; empty where that was not measured."""
    found = output.sample_errors
    if found is None:
        return ""
    if found.largest == 0:
        return f"the output of all {counted(found.samples, 'sample')} is equal"
    parts = ", ".join(f"{figure(error)} ({share(part)})" for part, error in found.quantiles)
    worst = f"worst {found.name or f'sample {found.worst}'}, {figure(found.largest)}"
    return f"relative error of the output, at most, of shares of {found.samples:,} samples: {parts}; {worst}"


def flips(output: OutputAgreement, most: int = _SHOWN) -> str:
    """Which samples get another highest class, those of the widest margins first; empty where none does."""
    if not output.flips or not output.flipped:
        return ""
    more = output.flipped - min(most, len(output.flips))
    named = "; ".join(map(_flip, output.flips[:most])) + (f"; and {more:,} more" if more else "")
    return f"{counted(output.flipped, 'sample')} with another highest class: {named}"


def _flip(each: Flip) -> str:
    name = each.name or f"sample {each.sample}"
    return f"{name} from {each.baseline} to {each.candidate}, margin {figure(each.margin)}"
