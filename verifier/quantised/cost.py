"""What a quantised candidate costs, as records: a cell of its own, its layers, and those to keep in float."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.cells import Cell
from verifier.graph.chance import same_chance
from verifier.graph.returned import Returned
from verifier.inputs.samples import batch_size
from verifier.judge import QUANTISED
from verifier.metrics.agreement import agreement
from verifier.models.casting import arguments, running
from verifier.quantised.fused import fused
from verifier.quantised.keeping import kept_in_float
from verifier.quantised.outputs import differing, joined, ordered
from verifier.quantised.ranges import clipped_otherwise, clipping, met
from verifier.quantised.sane import figures, outlying
from verifier.quantised.trials import Trials
from verifier.records import (
    Budget,
    Cause,
    CellResult,
    FormStage,
    PairResult,
    Quantisation,
    QuantisedLayer,
    QuantiserFault,
    Status,
    Verdict,
    brief,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.bench.comparing import Compared
    from verifier.inputs import Inputs
    from verifier.quantised.apart import Apart
    from verifier.quantised.fused import Fused
    from verifier.quantised.ranges import Met
    from verifier.quantised.sane import Fault
    from verifier.quantised.trials import Effect
    from verifier.records import Comparison, KeptInFloat

_CELL = Cell("cpu", "float32")


@dataclass(frozen=True)
class Cost:
    """What a quantised candidate costs.

    Attributes:
        results: All cells, with one of the quantised candidate itself before those of numerics.
        quantisation: What is told of its layers; None of what is not quantised.
        stages: The form as it is shipped.
        notes: What of the data is clipped.
    """

    results: tuple[CellResult, ...]
    quantisation: Quantisation | None
    stages: tuple[FormStage, ...]
    notes: tuple[str, ...] = ()


def cost(
    taken: Apart | None, found: Compared, results: Sequence[CellResult], parts: Sequence[Inputs]
) -> Cost:
    """Measure a quantised candidate against itself with nothing rounded, which `results` hold against the baseline.

    Args:
        taken: The candidate; None if it is not quantised, and all is as it was found.
        found: The comparison of what is left of it with nothing rounded.
        results: The cells of that.
        parts: What both are run on, in batches.

    Raises:
        ModelError: The candidate fails on what the baseline takes.
    """
    before = tuple(stage for run in found.runs for stage in run.stages)
    if taken is None:
        return Cost(tuple(results), None, before)
    budget = taken.budget
    started = time.perf_counter()
    with running(_CELL):
        trials = Trials(
            taken.quantised,
            taken.weights,
            [arguments(each.other or each, _CELL) for each in parts],
            [*map(batch_size, parts)],
        )
        undone = _undone(results)
        rounded = met(taken, trials)
        doubts = _doubts(taken, rounded) if undone is Verdict.MATCH else ()
        faults = [*{each.tensor: each for each in (*reversed(doubts), *reversed(taken.faults))}.values()][
            ::-1
        ]
        effects = dict(trials.effects())
        given, plain = trials.outputs([]), trials.outputs([], shipped=False)
        right = _returned(found, parts)
    sites = taken.quantised.sites(found.bench.alignment.candidate)
    names = {layer: found.bench.alignment.candidate.sites[k].name for layer, k in sites.items()}
    kept = None
    if budget is not None and undone is Verdict.MATCH and not faults:
        with running(_CELL):
            kept = kept_in_float(trials, budget)
    whole = trials.off([])
    quantisation = Quantisation(
        kind=taken.quantised.kind,
        undone=undone,
        error=whole.error,
        measure="changed" if whole.changed > whole.numbers else "nrmse",
        layers=tuple(_layers(taken, rounded, effects, names, kept)),
        faults=tuple(
            QuantiserFault(
                layer=each.layer,
                site=names.get(each.layer, ""),
                tensor=each.tensor,
                code=each.code,
                said=each.said,
                evidence=each.evidence,
            )
            for each in faults
        ),
        kept=kept,
    )
    shipped = fused(trials.reference, plain, given) if taken.quantised.stage else None
    stages = () if shipped is None else (_stage(taken, shipped),)
    cut = [*clipped_otherwise(rounded, faults)]
    clauses = {reader: said for each, said in cut for reader in each.rounding.readers}
    cell = _cell(taken, found, results, effects, names, faults, quantisation, clauses)
    given = ordered(given, found.bench.alignment.candidate.output_order)
    cell = _with_outputs(cell, right, given, differing(right, given), shipped)
    seconds = time.perf_counter() - started
    cell = msgspec.structs.replace(cell, batch_size=sum(map(batch_size, parts)), seconds=seconds)
    told = [_explained(each, names, faults) for each in results]
    place = next((k for k, each in enumerate(told) if each.role == "numerics"), len(told))
    return Cost(
        (*told[:place], cell, *told[place:]), quantisation, (*before, *stages), tuple(said for _, said in cut)
    )


def _doubts(taken: Apart, rounded: Sequence[Met]) -> tuple[Fault, ...]:
    """What is wrong with ranges. Of what the model is given other data explain one as well."""
    entering = {each.rounding.name for each in rounded if each.given}
    odd = outlying([each[:3] for each in rounded])
    return (*taken.doubts, *(each for each in odd if each.tensor not in entering), *clipping(rounded))


def _returned(found: Compared, parts: Sequence[Inputs]) -> list[tuple[Tensor, ...]]:
    """What the baseline returns for each batch."""
    bench = found.bench.at(cell=_CELL)
    model = bench.copied("baseline")
    outputs = []
    for each in parts:
        args, kwargs = arguments(each, _CELL)
        with torch.no_grad(), same_chance():
            outputs.append(tuple(Returned.of(model(*args, **kwargs)).values()))
    return ordered(outputs, found.bench.alignment.baseline.output_order)


def _undone(results: Sequence[CellResult]) -> Verdict:
    """The verdict on the candidate with nothing rounded, over all cells."""
    ran = [each.verdict for each in results if each.verdict is not Verdict.SKIPPED]
    for verdict in (Verdict.DIVERGED, Verdict.INCONCLUSIVE):
        if verdict in ran:
            return verdict
    return Verdict.MATCH if ran else Verdict.INCONCLUSIVE


def _layers(
    taken: Apart,
    rounded: Sequence[Met],
    effects: Mapping[str, Effect],
    names: Mapping[str, str],
    kept: KeptInFloat | None,
) -> list[QuantisedLayer]:
    weights = {
        layer: figures(exact.weight, stored.grid)
        for stored, exact in taken.matched.values()
        for layer in stored.layers
    }
    cut: dict[str, float] = {}
    for each in rounded:
        for reader in each.rounding.readers:
            cut[reader] = max(each.clipped, cut.get(reader, 0.0))
    return [
        QuantisedLayer(
            name=layer.name,
            site=names.get(layer.name, ""),
            op=layer.op,
            sqnr_db=effects[layer.name].alone.sqnr_db,
            sqnr_total_db=effects[layer.name].total.sqnr_db,
            saves=1 - effects[layer.name].output,
            clipped=weights[layer.name].clipped if layer.name in weights else None,
            used=min(weights[layer.name].used, 1.0) if layer.name in weights else None,
            input_clipped=cut.get(layer.name),
            kept=kept is not None and layer.name in kept.layers,
        )
        for layer in taken.quantised.layers
    ]


def _stage(taken: Apart, shipped: Fused) -> FormStage:
    """The form as it is shipped, against its operators one by one."""
    return FormStage(
        role="candidate",
        form=taken.quantised.kind,
        name=taken.quantised.stage,
        verdict=Verdict.MATCH if shipped.near else Verdict.DIVERGED,
        error=shipped.error,
        exact=shipped.exact,
    )


def _cell(
    taken: Apart,
    found: Compared,
    results: Sequence[CellResult],
    effects: Mapping[str, Effect],
    names: Mapping[str, str],
    faults: Sequence[Fault],
    quantisation: Quantisation,
    cut: Mapping[str, str],
) -> CellResult:
    """The candidate as it is: a row for each layer that computes with rounded numbers."""
    ran = next((each for each in reversed(results) if each.layers), None)
    partners = {row.candidate: row for row in (ran.layers if ran else ()) if row.candidate is not None}
    wrong = {each.layer: each for each in reversed(faults)}
    proved = quantisation.undone is Verdict.MATCH
    rows = []
    shapes = {site.name: site.shape for site in found.bench.alignment.candidate.sites}
    for index, layer in enumerate(taken.quantised.layers):
        effect, site = effects[layer.name], names.get(layer.name, layer.name)
        partner = partners.get(site)
        fault = wrong.get(layer.name)
        noisy = effect.alone.max_abs != 0 or fault is not None
        row = PairResult(
            index=index,
            baseline=None if partner is None else partner.baseline,
            candidate=site,
            op=layer.op if partner is None else partner.op,
            shape=shapes.get(site, ()),
            status=Status.CULPRIT if noisy else Status.CARRIES if effect.total.max_abs else Status.OK,
            total=effect.total,
            intrinsic=effect.alone,
            budget=Budget(rule=QUANTISED, total=0.0, intrinsic=0.0),
        )
        rows.append(_told(row, effect, fault, cut.get(layer.name, ""), proved=proved) if noisy else row)
    culprits = tuple(row for row in rows if row.status is Status.CULPRIT)
    first = next((row for row in culprits if row.stage == "translation"), next(iter(culprits), None))
    return CellResult(
        name=f"cpu/{_bits(taken)}",
        role="numerics",
        verdict=Verdict.DIVERGED if culprits else Verdict.MATCH,
        batch_size=0,
        reason=_reason(first, quantisation),
        first_divergence=first,
        culprits=culprits,
        layers=tuple(rows),
        named=False,
    )


def _told(row: PairResult, effect: Effect, fault: Fault | None, cut: str, *, proved: bool) -> PairResult:
    """A row with why it differs: what is wrong with a quantiser, or that it rounds."""
    if fault is not None:
        cause = _cause(fault)
        return msgspec.structs.replace(row, stage="translation", cause=cause, reason=fault.said)
    if not proved:
        return msgspec.structs.replace(
            row, reason=f"{effect.alone.sqnr_db:.1f} dB where it alone is quantised"
        )
    cause = Cause(
        code="quantised",
        summary=f"what it computes with is rounded: {effect.alone.sqnr_db:.1f} dB where it alone is quantised",
        confirmed=True,
        evidence=(
            "with nothing rounded, and the baseline's weights, it gives what the baseline gives",
            *filter(None, [cut]),
        ),
        remedy="keep it in float if that is too much; --keep-float-budget tells what needs it",
    )
    return msgspec.structs.replace(row, stage="quantisation", cause=cause, reason=cause.summary)


def _cause(fault: Fault) -> Cause:
    return Cause(
        code=fault.code, summary=fault.said, confirmed=True, evidence=fault.evidence, remedy=fault.remedy
    )


def _reason(first: PairResult | None, quantisation: Quantisation) -> str:
    if first is None:
        return ""
    if first.stage == "translation":
        return brief(f"{first.baseline or first.candidate}: {first.reason}")
    if quantisation.undone is not Verdict.MATCH:
        return "quantised, and not the baseline's function with nothing rounded"
    if quantisation.measure == "changed":
        return (
            f"quantisation and nothing else: {quantisation.error:.2%} of the whole numbers it returns change"
        )
    return (
        f"quantisation and nothing else: the outputs are off by {quantisation.error:.2e} (NRMSE); --policy int8 "
        "judges what becomes of the classes"
    )


def _with_outputs(
    cell: CellResult,
    right: Sequence[tuple[Tensor, ...]],
    given: Sequence[tuple[Tensor, ...]],
    whole: Comparison | None,
    shipped: Fused | None,
) -> CellResult:
    """The cell with what becomes of the outputs."""
    returned = joined(right), joined(given)
    wrong = shipped is not None and not shipped.near
    row = PairResult(
        index=len(cell.layers),
        baseline="output",
        candidate="output",
        op="output",
        shape=tuple(returned[0][0].shape) if returned[0] else (),
        status=Status.CULPRIT
        if wrong
        else Status.CARRIES
        if whole is not None and whole.max_abs
        else Status.OK,
        total=whole,
        intrinsic=None,
        budget=Budget(rule=QUANTISED, total=0.0, intrinsic=0.0),
        position=0,
    )
    if shipped is not None and wrong:
        where = f", in {shipped.where}" if shipped.where else ""
        said = f"as it is shipped it is {shipped.error:.2e} (NRMSE) from its operators, more than rounding once more"
        said += where
        row = msgspec.structs.replace(row, stage="fusion", reason=said)
    rows, culprits = (*cell.layers, row), cell.culprits + ((row,) if wrong else ())
    first = cell.first_divergence
    told = (first is None and row.status is not Status.OK) or (
        wrong and (first is None or first.stage != "translation")
    )
    return msgspec.structs.replace(
        cell,
        layers=rows,
        culprits=culprits,
        verdict=Verdict.DIVERGED if wrong or row.status is Status.CARRIES else cell.verdict,
        first_divergence=row if told else first,
        reason=row.reason if told else cell.reason,
        output=agreement(*returned),
        outputs=(row.index,),
    )


def _explained(cell: CellResult, names: Mapping[str, str], faults: Sequence[Fault]) -> CellResult:
    """A cell of the comparison with nothing rounded, with what quantisers have to do with its culprits."""
    known = {names[each.layer]: _cause(each) for each in reversed(faults) if each.layer in names}

    def told(row: PairResult) -> PairResult:
        cause = known.get(row.candidate or "")
        return row if cause is None or row.cause is None else msgspec.structs.replace(row, cause=cause)

    first = cell.first_divergence
    return msgspec.structs.replace(
        cell,
        layers=tuple(map(told, cell.layers)),
        culprits=tuple(map(told, cell.culprits)),
        first_divergence=None if first is None else told(first),
    )


def _bits(taken: Apart) -> str:
    """The dtype of the codes, by the least bits of any."""
    grids = [each.grid for each in taken.quantised.roundings if each.grid is not None]
    grids += [each.grid for each in taken.quantised.stored if not each.bias]
    return f"int{min((grid.high - grid.low).bit_length() for grid in grids)}"
