"""The page's contents as text: every decision about words and numbers, so that the template makes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import (
    acceptance,
    criteria,
    data_set,
    exercise,
    facts,
    grouping,
    ladder,
    preprocessing,
    progressive,
    quantisation,
    sentences,
    signs,
    stages,
    table,
    wording,
)
from reports.culprits import SHOWN, Culprit, culprits
from reports.depth import DepthChart, chart
from reports.headline import headline
from reports.sections import Section
from verifier.records import Status, Verdict

if TYPE_CHECKING:
    from reports.facts import Facts, Term
    from reports.signs import Mark
    from verifier.records import CellResult, ModelInfo, PairResult, Result

_MOST_UNMATCHED = 200
_MOST_SILENT = 20
_NAMED, _OPEN = 4, 8  # places of a difference as written that are named; differences that are not folded
_GATE = {
    Verdict.MATCH: "passed (exit code 0)",
    Verdict.ACCEPTED: "passed (exit code 0)",
    Verdict.DIVERGED: "not passed (exit code 1)",
    Verdict.INCONCLUSIVE: "not decided (exit code 4)",
    Verdict.SKIPPED: "not run",
}


@dataclass(frozen=True, slots=True)
class CellView:
    """A cell in the list of cells; `decides` is true for the one the verdict rests on."""

    name: str
    role: str
    verdict: Mark
    samples: str
    seconds: str
    counts: str
    largest: str
    output: str
    floor: str
    hardware: str
    notes: tuple[str, ...]
    decides: bool


@dataclass(frozen=True, slots=True)
class Square:
    """A cell in the matrix: its verdict with the figure that says most, or nothing where there is no such cell."""

    verdict: Mark | None
    figure: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells by dtype (across) and by device and memory format (down)."""

    dtypes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]


@dataclass(frozen=True, slots=True)
class CriterionRow:
    """A published criterion with its measured value."""

    name: str
    value: str
    required: str
    outcome: Mark


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page that not every report has: its place and its name in the navigation, and its lists."""

    anchor: str
    name: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template prints."""

    title: str
    verdict: Mark
    answer: str
    reason: str
    baseline: str
    candidate: str
    baseline_facts: str
    candidate_facts: str
    policy: str
    gate: str
    first_title: str
    first_few: str
    first_divergence: str
    first_anchor: str
    first_figures: str
    culprits_title: str
    culprits: tuple[Culprit, ...]
    further_culprits: tuple[str, ...]
    prepared: str
    matrix: Matrix | None
    cells: tuple[CellView, ...]
    criteria: tuple[CriterionRow, ...]
    sources: tuple[str, ...]
    impact: str
    coverage: str
    exercised: tuple[str, ...]
    unmatched: tuple[tuple[str, str, str, str], ...]
    unmatched_more: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]
    static: tuple[tuple[str, str, str], ...]
    static_count: str
    static_open: bool
    chart: DepthChart | None
    has_sites: bool
    accepting: bool
    weights: Facts
    mapping: tuple[tuple[str, str], ...]
    facts: tuple[Facts, ...]
    method: tuple[Term, ...]
    command: str
    circumstances: str


def page(verification: Result) -> Page:
    """The page of a verification."""
    first = verification.first_divergence
    answer = headline(verification).partition(": ")[2]
    nothing = grouping.nothing_in_common(verification)
    unmatched = () if nothing else verification.coverage.unmatched
    static = () if nothing else _static(verification)
    return Page(
        title=f"{verification.verdict}: {verification.candidate.spec} against {verification.baseline_name}",
        verdict=signs.of_verdict(verification.verdict),
        answer=answer,
        reason=_reason(verification, answer),
        baseline=verification.baseline_name,
        candidate=verification.candidate.spec,
        baseline_facts=_model(verification.baseline),
        candidate_facts=_model(verification.candidate),
        policy=verification.policy,
        gate=_GATE[verification.verdict],
        first_title=sentences.first(verification),
        first_few=data_set.few(verification),
        first_divergence=sentences.divergence(first) if first else "",
        first_anchor=_anchor(verification, first) if first and not nothing else "",
        first_figures=sentences.agreement(first.total or first.intrinsic) if first else "",
        culprits_title=_title(verification),
        culprits=() if nothing else culprits(verification),
        further_culprits=()
        if nothing
        else tuple(
            grouping.sentence(group, fix=not verification.verdict.passed)
            for group in grouping.groups(verification)[SHOWN:]
        ),
        prepared=preprocessing.line(verification.preprocessing),
        matrix=_matrix(verification),
        cells=tuple(_cell(cell, verification) for cell in verification.cells),
        criteria=_criteria(verification),
        sources=tuple(dict.fromkeys(each.source for each in verification.criteria if each.source)),
        impact=sentences.impact(verification.output),
        coverage=sentences.coverage(verification.coverage),
        exercised=(
            *(f"returned otherwise: {each}" for each in verification.coverage.returned),
            *(
                f"differs, and no input reached it: {each}"
                for each in exercise.silent(verification)[:_MOST_SILENT]
            ),
            *exercise.lines(verification),
        ),
        unmatched=tuple(
            (each.side, each.name, each.op, _why(each.reason, each.compared_at))
            for each in unmatched[:_MOST_UNMATCHED]
        ),
        unmatched_more=(
            f"and {len(unmatched) - _MOST_UNMATCHED:,} more, in the table of all sites"
            if len(unmatched) > _MOST_UNMATCHED
            else ""
        ),
        notes=verification.notes,
        parts=_parts(verification),
        static=static,
        static_count=wording.counted(len(static), "difference"),
        # What was found to be the cause stands on its card.
        static_open=len(static) <= _OPEN and not _explained(verification),
        chart=chart(verification),
        has_sites=any(cell.layers for cell in verification.cells),
        accepting=verification.verdict.passed,
        weights=facts.weights(verification.weights),
        mapping=facts.mapping(verification.weights),
        facts=facts.others(verification),
        method=facts.METHOD,
        command=verification.command,
        circumstances=f"{verification.created}, {verification.seconds:.1f} s",
    )


def data(verification: Result) -> str:
    """What the script on the page works with, as JSON that may stand inside a script element."""
    return table.embedded(table.data(verification))


def _parts(verification: Result) -> tuple[Part, ...]:
    stage_0 = verification.preprocessing
    found = (
        Part("accepted", acceptance.TITLE, _accepted(verification)),
        Part(
            "preprocessing",
            "Preprocessing",
            () if stage_0 is None or stage_0.status == "exact" else tuple(preprocessing.sections(stage_0)),
        ),
        Part("quantisation", "Quantisation", tuple(quantisation.sections(verification, None))),
        Part("stages", "Stages", (*stages.sections(verification), *ladder.sections(verification))),
        Part("probes", "Probes", _probes(verification)),
        Part("steps", "Blocks and stages", tuple(progressive.sections(verification))),
    )
    return tuple(each for each in found if each.sections)


def _accepted(verification: Result) -> tuple[Section, ...]:
    rows = tuple((each,) for each in acceptance.lines(verification))
    return (Section("Budgets and waivers in force", rows),) if rows else ()


def _probes(verification: Result) -> tuple[Section, ...]:
    rows = tuple((each,) for each in exercise.probes(verification))
    return (Section("Inputs drawn on purpose", rows),) if rows else ()


def _reason(verification: Result, answer: str) -> str:
    """The reason, unless the answer says it already or the culprits say it better."""
    said = verification.reason
    told = said in answer or (verification.verdict is Verdict.DIVERGED and bool(verification.culprits))
    return "" if told else verification.reason


def _title(verification: Result) -> str:
    first = sentences.first(verification)
    if not verification.culprits or grouping.nothing_in_common(verification):
        return first
    found = grouping.groups(verification)
    known = all(each.known for each in found)
    what = "one cause" if len(found) == 1 else wording.counted(len(found), "cause")
    if verification.verdict.passed:
        return f"{grouping.title(verification)}: {what}" if known else grouping.title(verification)
    return f"{first} and {what if known else 'culprits'}"


def _anchor(verification: Result, first: PairResult) -> str:
    """Where on the page the first divergence is shown in full: it mostly is a culprit."""
    for number, group in enumerate(grouping.groups(verification)[:SHOWN], 1):
        if any(row.index == first.index for row in group.rows):
            return f"culprit-{number}"
    return ""


def _explained(verification: Result) -> bool:
    found = grouping.groups(verification)
    return bool(found) and all(each.confirmed for each in found)


def _static(verification: Result) -> tuple[tuple[str, str, str], ...]:
    """Differences as written: what is said of several places is said once."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in verification.static:
        found.setdefault((each.kind, each.summary), []).append(each.candidate or each.baseline or "")
    return tuple((kind, wording.some(where, _NAMED), said) for (kind, said), where in found.items())


def _model(model: ModelInfo) -> str:
    parameters = wording.counted(model.parameters, "parameter")
    return f"{model.type}, {parameters}, {wording.counted(model.sites, 'site')}"


def _why(reason: str, compared_at: str | None) -> str:
    return "; ".join(
        each for each in (reason, f"compared as a whole at {compared_at}" if compared_at else "") if each
    )


def _criteria(verification: Result) -> tuple[CriterionRow, ...]:
    return tuple(
        CriterionRow(
            name=each.title,
            value=criteria.measured(each),
            required=f"{each.comparison} {wording.figure(each.limit)}",
            outcome=signs.of_outcome(passed=each.passed),
        )
        for each in verification.criteria
    )


def _matrix(verification: Result) -> Matrix | None:
    """The cells as a matrix; None where there are none."""
    places: dict[str, dict[str, Square]] = {}
    dtypes: dict[str, None] = {}
    for cell in verification.cells:
        device, _, rest = cell.name.partition("/")
        dtype, _, variant = rest.partition("/")
        row = device if not variant else f"{device}, {variant.replace('/', ', ')}"
        dtypes.setdefault(dtype)
        places.setdefault(row, {})[dtype] = Square(
            signs.of_cell(cell, verification), _telling(cell, verification)
        )
    if not places:
        return None
    nothing = Square(None, "")
    return Matrix(
        tuple(dtypes),
        tuple((name, tuple(row.get(dtype, nothing) for dtype in dtypes)) for name, row in places.items()),
    )


def _telling(cell: CellResult, verification: Result) -> str:
    if cell.verdict is Verdict.SKIPPED:
        return "could not run"
    if grouping.nothing_in_common(verification):
        return "no site has a partner"
    if cell.culprits:
        return sentences.culprits(len(cell.culprits), verification)
    return f"largest error {_largest(cell)}"


def _largest(cell: CellResult) -> str:
    worst = next(iter(sentences.worst(cell.layers, 1)), None)
    return "0" if worst is None else wording.figure(sentences.error(worst.total))


def _cell(cell: CellResult, verification: Result) -> CellView:
    told = (cell.reason, sentences.repeated(cell), *cell.notes)
    return CellView(
        name=cell.name,
        role=cell.role,
        verdict=signs.of_cell(cell, verification),
        samples=wording.counted(cell.batch_size, "sample"),
        seconds=f"{cell.seconds:.1f} s",
        counts=_counts(cell, verification),
        largest=_largest(cell) if cell.layers else "-",
        output=sentences.impact(cell.output),
        floor=_floor(cell),
        hardware=sentences.exactness(cell),
        notes=tuple(each for each in told if each),
        decides=cell is sentences.deciding_cell(verification),
    )


def _counts(cell: CellResult, verification: Result) -> str:
    """How many rows have which status; and how many are culprits, where that is what has no partner."""
    counts = {status: sum(pair.status is status for pair in cell.layers) for status in Status}
    said = ", ".join(
        f"{count:,} {signs.of_status(status, verification).word}" for status, count in counts.items() if count
    )
    lonely = sum(pair.status is Status.UNMATCHED for pair in cell.culprits)
    if not lonely or grouping.nothing_in_common(verification):
        return said or "no rows"
    some = "" if lonely == len(cell.culprits) else f"{lonely:,} of them "
    return f"{said}; {sentences.culprits(len(cell.culprits), verification)}, {some}unmatched"


def _floor(cell: CellResult) -> str:
    """How far the baseline is from itself where nothing should matter."""
    floor = cell.noise_floor
    if floor is None:
        return "not run" if cell.role == "numerics" and cell.layers else ""
    tried = (
        ("other threads", floor.threads),
        ("other layout", floor.layout),
        ("other position in the batch", floor.position),
    )
    return ", ".join(f"{words} {wording.figure(value)}" for words, value in tried if value is not None)
