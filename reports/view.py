"""The page's contents as text: every decision about words and numbers, so that the template makes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import sentences
from verifier.result import Status, Verdict

if TYPE_CHECKING:
    from verifier.result import CellResult, Comparison, ModelInfo, OutputAgreement, PairResult, Verification

# Signs beside words and colours, for readers and printers without colour.
VERDICT_SIGNS = {
    Verdict.MATCH: "✓",
    Verdict.DIVERGED: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.SKIPPED: "–",  # noqa: RUF001 - a dash, as for nothing
}
STATUS_SIGNS = {
    Status.OK: "✓",
    Status.CULPRIT: "✗",
    Status.AMPLIFIES: "▲",
    Status.CARRIES: "→",
    Status.UNMATCHED: "?",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict or status: its word, its sign, and the class that colours it."""

    word: str
    sign: str
    tone: str


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One row of the table of sites."""

    index: str
    baseline: str
    candidate: str
    op: str
    shape: str
    status: Mark
    total: str
    intrinsic: str
    allowed_total: str
    allowed_intrinsic: str
    one_minus_pearson: str
    max_abs: str
    max_abs_at: str
    nonfinite: str
    reason: str


@dataclass(frozen=True, slots=True)
class CellView:
    """A cell with its table of sites; `decides` is true for the one the verdict rests on."""

    name: str
    role: str
    verdict: Mark
    samples: str
    seconds: str
    reason: str
    counts: str
    decides: bool
    sites: tuple[SiteRow, ...]


@dataclass(frozen=True, slots=True)
class CriterionRow:
    """A published criterion with its measured value."""

    name: str
    value: str
    required: str
    outcome: Mark
    source: str


@dataclass(frozen=True, slots=True)
class Blame:
    """A culprit: the sentence about it and what supports the cause."""

    sentence: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A titled list of names and values."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template prints."""

    title: str
    verdict: Mark
    headline: str
    reason: str
    baseline: str
    candidate: str
    first_divergence: str
    culprits: tuple[Blame, ...]
    criteria: tuple[CriterionRow, ...]
    impact: str
    coverage: str
    unmatched: tuple[tuple[str, str, str, str], ...]
    cells: tuple[CellView, ...]
    facts: tuple[Facts, ...]
    notes: tuple[str, ...]
    command: str
    circumstances: str


def page(verification: Verification) -> Page:
    """The page of a verification."""
    first = verification.first_divergence
    headline = sentences.headline(verification)
    return Page(
        title=f"{verification.verdict}: {verification.candidate.spec} against {verification.baseline.spec}",
        verdict=_verdict(verification.verdict),
        headline=headline,
        reason=verification.reason if sentences.visible(verification.reason) not in headline else "",
        baseline=_model(verification.baseline),
        candidate=_model(verification.candidate),
        first_divergence=sentences.divergence(first) if first else "",
        culprits=tuple(_blame(pair) for pair in verification.culprits),
        criteria=_criteria(verification),
        impact=sentences.impact(verification.output),
        coverage=sentences.coverage(verification.coverage),
        unmatched=tuple(
            (each.side, each.name, each.op, each.reason) for each in verification.coverage.unmatched
        ),
        cells=tuple(_cell(cell, verification) for cell in verification.cells),
        facts=_facts(verification),
        notes=verification.notes,
        command=verification.command,
        circumstances=f"{verification.created}, {verification.seconds:.1f} s, policy {verification.policy}",
    )


def _verdict(verdict: Verdict) -> Mark:
    return Mark(str(verdict), VERDICT_SIGNS[verdict], str(verdict))


def _status(status: Status) -> Mark:
    return Mark(str(status), STATUS_SIGNS[status], str(status))


def _model(model: ModelInfo) -> str:
    parameters = sentences.counted(model.parameters, "parameter")
    return f"{model.spec} ({model.type}, {parameters}, {sentences.counted(model.sites, 'site')})"


def _blame(pair: PairResult) -> Blame:
    return Blame(sentences.blame(pair), pair.cause.evidence if pair.cause else ())


def _criteria(verification: Verification) -> tuple[CriterionRow, ...]:
    return tuple(
        CriterionRow(
            name=each.name,
            value=sentences.figure(each.value),
            required=f"{each.comparison} {sentences.figure(each.limit)}",
            outcome=Mark("passed", "✓", "match") if each.passed else Mark("failed", "✗", "diverged"),
            source=each.source,
        )
        for each in verification.criteria
    )


def _cell(cell: CellResult, verification: Verification) -> CellView:
    counts = {status: sum(pair.status is status for pair in cell.layers) for status in Status}
    return CellView(
        name=cell.name,
        role=cell.role,
        verdict=_verdict(cell.verdict),
        samples=sentences.counted(cell.batch_size, "sample"),
        seconds=f"{cell.seconds:.1f} s",
        reason=cell.reason,
        counts=", ".join(f"{count} {status}" for status, count in counts.items() if count) or "no sites",
        decides=cell is sentences.deciding_cell(verification),
        sites=tuple(_site(pair) for pair in cell.layers),
    )


def _site(pair: PairResult) -> SiteRow:
    metric = sentences.metric_of(pair)
    shown = pair.total or pair.intrinsic
    budget = pair.budget
    return SiteRow(
        index=str(pair.index),
        baseline=pair.baseline or "-",
        candidate=pair.candidate or "-",
        op=pair.op,
        shape=_shapes(pair),
        status=_status(pair.status),
        total=_error(pair.total, metric),
        intrinsic=_error(pair.intrinsic, metric),
        allowed_total=sentences.figure(budget.total if budget else None),
        allowed_intrinsic=sentences.figure(budget.intrinsic if budget else None),
        one_minus_pearson=sentences.figure(shown.one_minus_pearson if shown else None),
        max_abs=sentences.figure(shown.max_abs if shown else None),
        max_abs_at=str(shown.max_abs_index) if shown and shown.max_abs_index is not None else "",
        nonfinite=f"{shown.nonfinite_baseline} / {shown.nonfinite_candidate}" if shown else "-",
        reason="" if pair.status is Status.OK else pair.reason,
    )


def _error(comparison: Comparison | None, metric: str) -> str:
    return sentences.figure(sentences.error(comparison, metric) if comparison else None)


def _shapes(pair: PairResult) -> str:
    own = sentences.dimensions(pair.shape)
    if pair.candidate_shape is None or pair.candidate_shape == pair.shape:
        return own
    return f"{own}, candidate {sentences.dimensions(pair.candidate_shape)}"


def _facts(verification: Verification) -> tuple[Facts, ...]:
    weights, inputs, environment = verification.weights, verification.inputs, verification.environment
    shapes = ", ".join(sentences.dimensions(shape) for shape in inputs.shapes)
    every = (
        Facts("Final output", _agreement(verification.output) if verification.output else ()),
        Facts(
            "Weights",
            _told(
                ("mode", weights.mode),
                ("source", weights.source),
                ("mapped tensors", str(len(weights.parameter_map))),
                ("baseline's without a partner", ", ".join(weights.unmapped_baseline)),
                ("candidate's without a partner", ", ".join(weights.unmapped_candidate)),
                ("kept by the candidate", ", ".join(weights.kept)),
                ("all 0 or all 1, so they reveal no fault", ", ".join(weights.unexercised)),
            ),
        ),
        Facts(
            "Inputs",
            _told(
                ("what", inputs.description),
                ("shapes", shapes),
                ("dtypes", ", ".join(inputs.dtypes)),
                ("files", ", ".join(inputs.files)),
                ("seed", "" if verification.seed is None else str(verification.seed)),
            ),
        ),
        Facts(
            "Environment",
            _told(
                ("Python", environment.python),
                ("platform", environment.platform),
                ("processor", environment.processor),
                ("devices", ", ".join(environment.devices)),
                ("threads", str(environment.threads)),
                *environment.packages.items(),
            ),
        ),
        Facts("Numeric settings", _told(*environment.flags.items())),
    )
    return tuple(facts for facts in every if facts.rows)


def _agreement(output: OutputAgreement) -> tuple[tuple[str, str], ...]:
    top1, top5, is_exact = output.top1_agreement, output.top5_agreement, output.bit_exact
    later = (
        ("same five highest classes", "" if top5 is None else sentences.share(top5)),
        ("KL divergence, nats, mean", _known(output.kl_mean)),
        ("KL divergence, nats, largest", _known(output.kl_max)),
        ("smallest margin of a first choice", _known(output.smallest_margin)),
        ("largest error of a logit", _known(output.largest_logit_error)),
        ("equal bit for bit", "" if is_exact is None else "yes" if is_exact else "no"),
    )
    return (
        ("mean squared error", sentences.figure(output.mse)),
        ("Pearson of the class probabilities", sentences.figure(output.pearson_probabilities)),
        ("same first choice", "-" if top1 is None else sentences.share(top1)),
        *_told(*later),
    )


def _known(value: float | None) -> str:
    return "" if value is None else sentences.figure(value)


def _told(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in rows if value)
