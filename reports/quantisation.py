"""What quantisation costs, layer by layer, and which layers to keep in float."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports import wording
from reports.sections import Section, cut, lines
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.records import KeptInFloat, Quantisation, QuantisedLayer, Result

TITLE = "What quantisation costs"
SHOWN = 10  # layers, those first that cost most


def sections(verification: Result, most: int | None = SHOWN) -> list[Section]:
    """What is told of a quantised candidate; nothing of any other. `most` layers are listed, None for all."""
    found = verification.quantisation
    if found is None:
        return []
    told = [Section(TITLE, lines(_whole(found)))]
    if found.faults:
        wrong = tuple((each.site or each.layer, each.said, "; ".join(each.evidence)) for each in found.faults)
        told.append(Section("Quantisers that are wrong", wrong, ("site", "what is wrong", "how it is told")))
    if found.kept is not None:
        told.append(Section("Kept in float", lines(_kept(found.kept))))
    layers = sorted(found.layers, key=lambda each: -each.saves if math.isfinite(each.saves) else 0.0)
    rows: tuple[tuple[str, ...], ...] = tuple(map(_row, layers))
    title = "Layers, by the share of the outputs' error that goes away with each in float"
    header = (
        "layer",
        "site",
        "share",
        "alone",
        "in all",
        "weight clipped",
        "range used",
        "input clipped",
        "",
    )
    told.append(Section(title, rows if most is None else cut(rows, most), header))
    return [each for each in told if each.rows]


def _whole(found: Quantisation) -> Iterator[str]:
    if found.undone is Verdict.MATCH:
        yield "with nothing rounded, and the baseline's weights, it is the baseline's function"
    elif found.undone is Verdict.DIVERGED:
        yield "with nothing rounded it is not the baseline's function: figures below are against itself"
    else:
        yield "whether it is the baseline's function with nothing rounded could not be told"
    if found.measure == "changed":
        yield f"{_percent(found.error)} of the whole numbers it returns change"
    else:
        yield f"its outputs are off by {wording.figure(found.error)} (NRMSE), by {_decibels(_sqnr(found.error))}"


def _sqnr(error: float) -> float:
    return -20 * math.log10(error) if error > 0 else math.inf


def _kept(kept: KeptInFloat) -> Iterator[str]:
    what = "of the samples have another class" if kept.measure == "top-1" else "off the outputs"
    met = "met" if kept.met else "not met"
    yield (
        f"{kept.asked}: {met} with {wording.counted(len(kept.layers), 'layer')} in float, by a run with exactly "
        f"these: {_percent(kept.after)} {what}, {_percent(kept.before)} with none in float, on "
        f"{wording.counted(kept.samples, 'sample')}"
    )
    if kept.doubt:
        yield kept.doubt
    if kept.layers:
        yield f"{kept.exclusion}: {', '.join(map(repr, kept.layers))}"


def _row(layer: QuantisedLayer) -> tuple[str, ...]:
    ranges = (
        "" if each is None else _percent(each) for each in (layer.clipped, layer.used, layer.input_clipped)
    )
    figures = _percent(layer.saves), _decibels(layer.sqnr_db), _decibels(layer.sqnr_total_db)
    return layer.name, layer.site, *figures, *ranges, "keep in float" if layer.kept else ""


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %" if math.isfinite(value) else wording.figure(value)


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "exact"
