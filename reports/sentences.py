"""Words and numbers that every report shares: the verdict in one sentence, a site's error in another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports.wording import counted, dimensions, figure, share
from verifier.records import Status, Verdict, brief, tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.records import (
        Cause,
        CellResult,
        Comparison,
        Coverage,
        Excited,
        OutputAgreement,
        PairResult,
        Result,
        Source,
        Step,
    )

METRICS = {
    "cosine": "cosine similarity",
    "max_abs": "largest absolute difference",
    "max_rel": "largest relative difference",
    "mse": "mean squared error",
    "nrmse": "relative error",
    "one_minus_pearson": "1 - Pearson correlation",
    "pearson": "Pearson correlation",
    "sqnr_db": "signal to noise in dB",
}

DEFAULT_METRIC = "nrmse"

TOTAL, INTRINSIC = "total", "intrinsic"
_CODE = 48  # characters of a code
_NAMES = (48, 32, 20)  # and of a name, where there is less and less room


_WEIGHTS = {
    "calibrated": "drawn for both models; the candidate's own values were not compared (--weights as-is does)",
    "init": "the baseline's initial ones for both models",
    "imagenet": "torchvision's published ones for both models",
    "transfer": "the baseline's for both models",
    "as-is": "each model's own",
    "file": "from a file, for both models",
}


def weights(verification: Result) -> str:
    """Which weights the models computed with, and how many of the candidate's own values were kept."""
    info = verification.weights
    said = f"weights {info.mode}: {_WEIGHTS.get(info.mode, info.source)}"
    if verification.certificate:
        said = said.replace("(--weights", "(record --weights")
    if not info.kept or info.mode == "as-is":
        return said
    kept = (
        f"{counted(len(info.kept), 'tensor')} in which the candidate is an edited copy, or which it alone has"
    )
    return f"{said.partition(';')[0]}, but for {kept}"


def models(verification: Result) -> str:
    """Which two models, and where one is a recording its file and what it is of."""
    found = verification.certificate
    said = f"{verification.candidate.spec} against {verification.baseline_name}"
    if found is None:
        return said
    spec = verification.baseline.spec or verification.baseline.type
    return f"{said}, {f'a recording of {spec}' if found.source else 'recorded'} from {found.created[:10]}"


def policy(verification: Result) -> str:
    """By which policy the verdict was given."""
    return f"policy {verification.policy}"


def name(pair: PairResult) -> str:
    """The pair's short name: the baseline's, or the candidate's where the baseline has no such site."""
    return pair.baseline or pair.candidate or "unnamed"


def site(pair: PairResult, most: int | None = None) -> str:
    """The pair's name, with the candidate's where that is another, or the side where it has no partner.

    Of names that are longer than `most` there is only the end.
    """
    own = name(pair) if most is None else tail(name(pair), most)
    if pair.baseline is None:
        return f"{own} (candidate only)"
    if pair.candidate is None:
        return f"{own} (baseline only)"
    if pair.candidate == pair.baseline:
        return own
    return f"{own} (candidate: {pair.candidate if most is None else tail(pair.candidate, most)})"


def forms(pair: PairResult) -> tuple[str, ...]:
    """What a pair is called in a sentence, from the longest to the shortest: both names, the one, and its end."""
    alone = pair.baseline is None or pair.candidate is None
    shorter = (site(pair, most) if alone else tail(name(pair), most) for most in _NAMES)
    return tuple(dict.fromkeys((site(pair, _NAMES[0]), *shorter)))


def divergence(pair: PairResult) -> str:
    """Where the models first part, how far, and what was allowed."""
    return ": ".join(parted(pair))


def parted(pair: PairResult) -> tuple[str, str]:
    """Where the models first part, and how far."""
    where = f"{site(pair)}, {pair.op}"
    if pair.excited is not None:
        return where, f"not on the given inputs; {_excited(pair.excited)}"
    sample = f" in {pair.sample}" if pair.sample else ""
    return where, f"{excess(pair, TOTAL)}{_largest(pair.total)}{sample}"


def step(each: Step) -> str:
    """A block or stage that was run alone: its verdict, where it is, and how far off."""
    where = f"{each.name} (candidate: {each.candidate or 'nothing'})"
    if each.reason or each.error is None:
        return f"{each.verdict}: {where}, {each.reason}"
    return (
        f"{each.verdict}: {where}, {METRICS[DEFAULT_METRIC]} {figure(error(each.error))}, "
        f"allowed {figure(each.allowed)}"
    )


def blame(pair: PairResult, *, fix: bool = True) -> str:
    """Why a culprit is wrong as far as that is known, what it does on identical inputs, and what to change."""
    remedy = [f"fix: {pair.cause.remedy}"] if fix and pair.cause is not None and pair.cause.remedy else []
    if pair.excited is not None and pair.cause is not None:
        return "; ".join(
            [
                f"{site(pair)}, {pair.op}: {because(pair.cause, stage=pair.stage)}",
                _excited(pair.excited),
                *remedy,
            ]
        )
    # A known cause tells what is missing; the figures are those of the site that reads it.
    behind = pair.cause is not None and pair.status is Status.UNMATCHED and pair.intrinsic is not None
    measured = f"{excess(pair, INTRINSIC, measured=behind)}{_largest(pair.intrinsic)}"
    measured += " behind it" if behind else ""
    where = f"{site(pair)}, {pair.op}"
    if pair.cause is None:
        return "; ".join([f"{where}: {measured}", *pair.differences])
    return "; ".join([f"{where}: {because(pair.cause, stage=pair.stage)}", measured, *remedy])


def impact(output: OutputAgreement | None) -> str:
    """What the difference does to the classes; empty where the output is no class scores or this was not recorded."""
    if output is None or not output.samples or output.top1_agreement is None:
        return ""
    samples = output.samples
    agrees = [f"top-1 agrees on {_agreeing(output.top1_agreement, samples)} of {counted(samples, 'sample')}"]
    if output.top5_agreement is not None:
        agrees.append(f"top-5 on {_agreeing(output.top5_agreement, samples)} of {samples:,}")
    said = [", ".join(agrees)]
    if output.largest_logit_error == 0:
        return f"{said[0]}; all logits are equal{' bit for bit' if output.bit_exact else ''}"
    if output.kl_max is not None:
        undefined = math.isnan(output.kl_max)
        said.append("KL undefined" if undefined else f"KL at most {figure(output.kl_max)}")
    margin, largest = output.smallest_margin, output.largest_logit_error
    if margin is not None and largest is not None:
        said.append(
            "logits are NaN"
            if math.isnan(margin) or math.isnan(largest)
            else f"smallest margin {figure(margin)} against a largest logit error of {figure(largest)}"
        )
        if output.top1_safe:
            said[-1] += ": no top-1 can flip"
        elif output.top1_agreement == 1:
            said[-1] += ": a flip of top-1 is not ruled out"
    return "; ".join(said)


def coverage(covered: Coverage) -> str:
    """How much of both models was compared."""
    pairs = f"{counted(covered.compared, 'pair')} compared"
    sides = (
        ("baseline", covered.baseline_sites, covered.baseline_share),
        ("candidate", covered.candidate_sites, covered.candidate_share),
    )
    if all(abs(covered.compared - part * sites) < 0.5 for _, sites, part in sides):
        return (
            f"{pairs}: {share(covered.baseline_share)} of the baseline's "
            f"{counted(covered.baseline_sites, 'site')} and {share(covered.candidate_share)} of the candidate's "
            f"{covered.candidate_sites:,}"
        )
    told = [
        f"{counted(sites - covered.compared, f'further {side} site')} without a partner"
        for side, sites, _ in sides
        if sites != covered.compared
    ]
    return (
        f"{', '.join([pairs, *told])}; with what is compared as a whole that is {share(covered.baseline_share)} of "
        f"what the baseline computes and {share(covered.candidate_share)} of what the candidate does"
    )


def deciding_cell(verification: Result) -> CellResult | None:
    """The cell whose numbers a report shows first, or None where nothing ran."""
    return verification.deciding_cell if verification.cells else None


def error(comparison: Comparison | None, metric: str = DEFAULT_METRIC) -> float:
    """The comparison's value of a metric; NaN where it was not measured or the metric is unknown."""
    value = getattr(comparison, metric, None)
    return float(value) if isinstance(value, int | float) else math.nan


def worst(pairs: Iterable[PairResult], count: int) -> list[PairResult]:
    """The `count` pairs with the largest total errors, NaN first; those without error are left out."""
    different = [pair for pair in pairs if pair.total is not None and not _is_equal(pair.total)]
    return sorted(different, key=lambda pair: (-severity(pair.total), pair.index))[:count]


def metric_of(pair: PairResult) -> str:
    """The metric the pair was judged by."""
    return pair.budget.metric if pair.budget else DEFAULT_METRIC


def _agreeing(part: float, samples: int) -> str:
    count = part * samples  # infinite where a damaged record holds absurd figures, each of them finite
    return f"{round(count):,}" if math.isfinite(count) else figure(part)


def _is_equal(comparison: Comparison) -> bool:
    return comparison.elements == 0 or (comparison.max_abs == 0 and not comparison.nonfinite_mismatched)


def severity(comparison: Comparison | None) -> float:
    """The relative error, infinite where it is none or values are not finite in one model only."""
    value = error(comparison)
    is_worse = math.isnan(value) or (comparison is not None and comparison.nonfinite_mismatched)
    return math.inf if is_worse else value


def agreement(comparison: Comparison | None) -> str:
    """The two figures that are told of every comparison: `MSE 3.4e-05, Pearson's r 0.999983 (1 - r 1.7e-05)`.

    Empty where nothing was measured.
    """
    return (
        "" if comparison is None else f"MSE {figure(comparison.mse)}, Pearson's r {correlation(comparison)}"
    )


def correlation(comparison: Comparison) -> str:
    """Pearson's r with 1 - r beside it, which keeps its digits where r is near 1."""
    distance = comparison.one_minus_pearson
    r = 1 - distance if 0 < distance < 0.1 else comparison.pearson
    if not math.isfinite(r) or distance == 0:
        return figure(r)
    return f"{figure(r)} (1 - r {figure(distance)})"


def located(verification: Result, pair: PairResult, *others: PairResult) -> tuple[tuple[str, str], ...]:
    """Where in the source of each side a site's call is, as far as it is known: `("candidate", "nets.py:12")`.

    Of the lines of others of its cause it is told how many there are: `nets.py:12 and 3 other lines`. A line of a
    recorded baseline is one of the file as it was then. In a file of nodes it is the node's name and number.
    """
    baseline = "baseline" if verification.certificate is None else "baseline, when it was recorded,"
    rows = (pair, *others)
    sides = (
        ("candidate", [row.candidate_source for row in rows]),
        (baseline, [row.baseline_source for row in rows]),
    )
    found = []
    for side, (first, *further) in sides:
        if first is not None:
            more = len({(each.file, each.line) for each in further if each} - {(first.file, first.line)})
            rest = f" and {counted(more, 'other node' if _of_nodes(first) else 'other line')}" if more else ""
            found.append((side, f"{place(first)}{rest}"))
    return tuple(found)


def place(source: Source) -> str:
    """A line of a program, `nets.py:12`, or a node of a graph: `net.onnx: node_Conv_4 (node 12)`."""
    if _of_nodes(source):
        return f"{source.file}: {source.function} (node {source.line})"
    return f"{source.file}:{source.line}"


def _of_nodes(source: Source) -> bool:
    return source.file.endswith((".onnx", ".xml"))


def culprits(count: int, verification: Result) -> str:
    """So many culprits, or sites, where a policy accepts them: `3 culprits`, `1 site beyond rounding`."""
    return (
        f"{counted(count, 'site')} beyond rounding"
        if verification.verdict.passed
        else counted(count, "culprit")
    )


def first(verification: Result) -> str:
    """What the place where the models first part is to a verification."""
    return "First difference" if verification.verdict.passed else "First divergence"


def repeated(cell: CellResult) -> str:
    """Whether the models gave the same numbers in every run, if that was asked for."""
    found = cell.repeatable
    if found is None:
        return ""
    where = [
        f"the {side} is not, first at {site}"
        for side, site in (("baseline", found.baseline), ("candidate", found.candidate))
        if site is not None
    ]
    return ", ".join(
        [f"not repeatable in {found.runs} runs", *where] if where else [f"repeatable in {found.runs} runs"]
    )


def exactness(cell: CellResult) -> str:
    """Whether the device computes as exactly as the cell's dtype promises; empty if that was not measured."""
    found = cell.hardware
    if found is None:
        return ""
    where = f"in one step, at {found.site or ''}"
    figures = f"{figure(found.distance)} {where} ({figure(found.allowed)} explained)"
    if found.verdict is Verdict.MATCH:
        return f"as exact as its dtype: at most {figures}"
    return (
        f"less exact than its dtype: the baseline itself is off by up to {figures}, "
        f"beyond rounding at {found.beyond} of {counted(found.compared, 'site')}"
    )


def localised(cell: CellResult) -> bool:
    """Whether a forced pass ran in a cell, so that culprits were looked for."""
    return any(pair.intrinsic is not None for pair in cell.layers)


def excess(pair: PairResult, kind: str, *, measured: bool = False) -> str:
    """What is wrong at a pair: its shape, what is missing, or its error with what was allowed."""
    if pair.status is Status.UNMATCHED and pair.reason and not measured:
        return pair.reason
    if pair.candidate_shape is not None:
        return f"shape {dimensions(pair.candidate_shape)} instead of {dimensions(pair.shape)}"
    comparison = pair.total if kind == TOTAL else pair.intrinsic
    if comparison is None:
        return "not measured alone" if kind == INTRINSIC else "not measured"
    metric = metric_of(pair)
    said = f"{METRICS.get(metric, metric)} {figure(error(comparison, metric))}"
    if kind == INTRINSIC and pair.kind != "input":
        said += " on identical inputs"
    if comparison.interval is not None:
        said += f" (95 %: {' to '.join(map(figure, comparison.interval.nrmse))})"
    if comparison.nonfinite_mismatched:
        said += f", {counted(comparison.nonfinite_mismatched, 'value')} not finite in one model only"
    if pair.budget is None:
        return said
    limit = pair.budget.total if kind == TOTAL else pair.budget.intrinsic
    return f"{said}, allowed {figure(limit)}, rule {pair.budget.rule}"


def _excited(found: Excited) -> str:
    """How far a site's two sides are apart on inputs that were not given."""
    measured = f"{METRICS[DEFAULT_METRIC]} {figure(error(found.error))}"
    if found.error.nonfinite_mismatched:
        measured = f"{counted(found.error.nonfinite_mismatched, 'value')} not finite in one model only"
    return f"alone, on the baseline's tensors {found.inputs}, {measured}"


def _largest(comparison: Comparison | None) -> str:
    if comparison is None or comparison.max_abs_index is None:
        return ""
    return f", largest absolute difference {figure(comparison.max_abs)} at {comparison.max_abs_index}"


def because(cause: Cause, most: int | None = None, stage: str = "") -> str:
    """A cause in a few words, with how sure it is and its code: `eps is ... (confirmed, batchnorm-eps)`.

    Where that has more than `most` characters, its summary is cut, and further codes are left out.
    """
    sure = "confirmed" if cause.confirmed else "not confirmed"
    said = f"{cause.summary} ({', '.join([*filter(None, [stage]), sure, *(cause.code, *cause.also)])})"
    if most is None or len(said) <= most:
        return said
    end = f" ({sure}, {tail(cause.code, _CODE)})"
    return brief(cause.summary, max(8, most - len(end))) + end
