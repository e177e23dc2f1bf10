"""The arrays of a recording, a row for each tensor, as they stand in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from verifier.certificates import file
from verifier.certificates.summary import Moments, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier.certificates.content import RecordingRecord


@dataclass(frozen=True)
class Recording:
    """One run: what is said of it, a summary for each row, and outputs that are kept in full, by position."""

    record: RecordingRecord
    summaries: tuple[Summary, ...]
    outputs: Mapping[int, Tensor]


def arrays_of(recording: Recording, place: str) -> dict[str, Tensor]:
    """A recording's arrays by their names below `place`, and outputs in full."""
    rows = recording.summaries
    columns = {
        "bits": [row.bits for row in rows],
        "masks": [row.mask for row in rows],
        "moments": [row.moments for row in rows],
        "histograms": [row.histogram for row in rows],
        "sketches": [row.sketch for row in rows],
    }
    found = {
        f"{place}/{name}": torch.from_numpy(np.array(column).reshape(len(rows), *file.ARRAYS[name][0])).to(
            file.ARRAYS[name][1]
        )
        for name, column in columns.items()
    }
    return found | {f"{place}/full/{n}": tensor for n, tensor in recording.outputs.items()}


def recording_of(record: RecordingRecord, tensors: Mapping[str, Tensor], place: str) -> Recording:
    """The recording whose arrays stand below `place`."""
    arrays = [tensors[f"{place}/{name}"].numpy() for name in file.ARRAYS]
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
    outputs = {n: tensors[f"{place}/full/{n}"] for n, each in enumerate(record.outputs) if each.stored}
    return Recording(record, rows, outputs)
