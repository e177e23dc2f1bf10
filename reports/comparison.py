"""Two saved results side by side: what got better, what worse, what appeared and what vanished."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import criteria, grouping, sentences, signs, wording
from reports.headline import headline
from reports.sections import Section, cut, lines
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.records import CellResult, Criterion, PairResult, Result

SHOWN = 10  # changes a list in a terminal
SHOWN_ON_PAGE = 500

# Errors of two runs on other inputs or another machine differ by less than this where nothing has changed.
FACTOR = 2.0

_NOT_RUN, _NOT_JUDGED = "not run", "not judged"


@dataclass(frozen=True, slots=True)
class Change:
    """A site that is not what it was: in which cell, both statuses, both errors, and by how much it changed.

    `kind` is the error that is compared: intrinsic where both results have it and it is not what it was, else total.
    `size` orders changes: the difference in severity, then the factor between the errors as a power of ten.
    """

    cell: str
    site: str
    before: str
    after: str
    kind: str
    error_before: float
    error_after: float
    size: tuple[int, float]


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything in which a later result differs from an earlier one.

    `accepting` says that the later one passes whatever is `new`. `uncompared` has rows of what only one of them
    tells: what it is, and how it stands before and after. `grounds` says in what the two runs differ besides the
    candidate, and `same` in what they do not.
    """

    headline: str
    verdicts: tuple[tuple[str, str, str], ...]
    criteria: tuple[tuple[str, str, str], ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    accepting: bool
    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    appeared: tuple[str, ...]
    vanished: tuple[str, ...]
    grounds: tuple[str, ...]
    same: tuple[str, ...]
    uncompared: tuple[tuple[str, str, str], ...]
    in_both: int

    @property
    def unchanged(self) -> bool:
        """Whether no site, cell or culprit changed."""
        return not (
            any(before != after for _, before, after in self.verdicts)
            or self.gone or self.new or self.worse or self.better or self.appeared or self.vanished
            or self.uncompared
        )  # fmt: skip


def compare(before: Result, after: Result) -> Changes:
    """What changed from one result to another; sites are the same if both their names are, or the baseline's is."""
    before, after = wording.shown(before), wording.shown(after)
    worse: list[Change] = []
    better: list[Change] = []
    appeared: dict[str, None] = {}
    vanished: dict[str, None] = {}
    uncompared: list[tuple[str, str, str]] = []
    earlier = {cell.name: cell for cell in before.cells}
    common = [
        (earlier[cell.name], cell)
        for cell in after.cells
        if cell.name in earlier and bool(cell.layers) == bool(earlier[cell.name].layers)
    ]
    for was, cell in common:
        changes, new, gone, alone = _sites(was, cell, before, after)
        uncompared += alone
        worse += [change for change in changes if change.size > (0, 0.0)]
        better += [change for change in changes if change.size < (0, 0.0)]
        appeared.update(dict.fromkeys(new))
        vanished.update(dict.fromkeys(gone))
    old, new_ = _culprits(before), _culprits(after)
    grounds = [*_grounds(before, after)]
    return Changes(
        headline=_headline(before, after),
        verdicts=_verdicts(before, after),
        criteria=_criteria(before, after),
        gone=_alone(before, old, new_, fix=False),
        new=_alone(after, new_, old, fix=not after.verdict.passed),
        accepting=after.verdict.passed,
        worse=tuple(sorted(worse, key=lambda each: each.size, reverse=True)),
        better=tuple(sorted(better, key=lambda each: each.size)),
        appeared=tuple(appeared),
        vanished=tuple(vanished),
        grounds=tuple(itertools.chain.from_iterable(ground.differs for ground in grounds)),
        same=tuple(ground.what for ground in grounds if ground.known and not ground.differs),
        uncompared=(*_cells_alone(before, after), *_criteria_alone(before, after), *uncompared),
        in_both=len(common),
    )


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page of a comparison prints; the reports are where the two results' own pages are, if known."""

    title: str
    headline: str
    tone: str
    before: str
    before_when: str
    before_report: str
    after: str
    after_when: str
    after_report: str
    unchanged: bool
    sections: tuple[Section, ...]


def page(before: Result, after: Result, reports: tuple[str, str] = ("", "")) -> Page:
    """The page of a comparison; `reports` are the addresses of both results' own pages, empty where there is none."""
    before, after = wording.shown(before), wording.shown(after)
    compared = compare(before, after)
    return Page(
        title=compared.headline,
        headline=compared.headline,
        tone=str(after.verdict),
        before=f"{before.candidate.spec} against {before.baseline.spec}",
        before_when=before.created,
        before_report=reports[0],
        after=f"{after.candidate.spec} against {after.baseline.spec}",
        after_when=after.created,
        after_report=reports[1],
        unchanged=compared.unchanged,
        sections=tuple(sections(compared, SHOWN_ON_PAGE)),
    )


def sections(compared: Changes, most: int = SHOWN, *, page: str | None = None) -> list[Section]:
    """The comparison as titled lists of at most so many rows; empty ones are left out. `page` is where its own is."""
    titled = {
        "Not on the same ground": compared.grounds,
        "Culprits that are gone": compared.gone,
        "New beyond rounding, accepted by policy" if compared.accepting else "New culprits": compared.new,
    }
    found = [Section(title, cut(lines(own), most)) for title, own in titled.items()]
    changed = [
        row for row in (*compared.verdicts, *compared.criteria) if row[1] != row[2] and _NOT_RUN not in row
    ]
    found.insert(0, Section("Verdicts and criteria", tuple(changed), ("", "before", "after")))
    header = ("site", "cell", "status", "error", "before", "after")
    for title, changes in (("Worse", compared.worse), ("Better", compared.better)):
        found.append(
            Section(f"{title}: {len(changes):,}", cut([row(change) for change in changes], most), header)
        )
    count = f"{len(compared.uncompared):,}"
    title = f"Cannot be compared: {count if compared.in_both else 'no cell has sites in both results'}"
    found.append(Section(title, cut(compared.uncompared, most), ("", "before", "after")))
    for title, names in (("Appeared", compared.appeared), ("Vanished", compared.vanished)):
        found.append(Section(f"{title}: {len(names):,}", cut(lines(names), most)))
    found.append(Section("The same in both", lines([", ".join(compared.same)] if compared.same else [])))
    found.append(Section("Report", lines([] if page is None else [page])))
    return [section for section in found if section.rows]


def row(change: Change) -> tuple[str, ...]:
    """A change as a row: site, cell, statuses, kind of error, both errors."""
    status = change.after if change.before == change.after else f"{change.before}, now {change.after}"
    figures = wording.figure(_told(change.error_before)), wording.figure(_told(change.error_after))
    return change.site, change.cell, status, change.kind, *figures


def _told(error: float) -> float | None:
    return None if math.isnan(error) else error


def _headline(before: Result, after: Result) -> str:
    still = before.verdict is after.verdict
    said = f"still {after.verdict}" if still else f"{before.verdict} before, {after.verdict} now"
    return headline(after, said)


def _verdicts(before: Result, after: Result) -> tuple[tuple[str, str, str], ...]:
    was = {cell.name: signs.of_cell(cell, before).word for cell in before.cells}
    now = {cell.name: signs.of_cell(cell, after).word for cell in after.cells}
    names = [*was, *(name for name in now if name not in was)]
    return (
        ("all cells", str(before.verdict), str(after.verdict)),
        *((name, was.get(name, _NOT_RUN), now.get(name, _NOT_RUN)) for name in names),
    )


def _cells_alone(before: Result, after: Result) -> Iterable[tuple[str, str, str]]:
    """Cells of which only one result has sites."""
    was, now = ({cell.name: cell for cell in each.cells} for each in (before, after))
    for name in dict.fromkeys((*was, *now)):
        one, other = was.get(name), now.get(name)
        if one is None or other is None or bool(one.layers) != bool(other.layers):
            yield f"cell {name}", _verdict(one), _verdict(other)


def _verdict(cell: CellResult | None) -> str:
    return _NOT_RUN if cell is None else str(cell.verdict)


def _criteria_alone(before: Result, after: Result) -> Iterable[tuple[str, str, str]]:
    """Criteria that only one of them was judged by."""
    was, now = ([(each.name, each.cell) for each in of.criteria] for of in (before, after))
    for each in before.criteria:
        if (each.name, each.cell) not in now:
            yield f"criterion {each.title}", _outcome(each), _NOT_JUDGED
    for each in after.criteria:
        if (each.name, each.cell) not in was:
            yield f"criterion {each.title}", _NOT_JUDGED, _outcome(each)


def _criteria(before: Result, after: Result) -> tuple[tuple[str, str, str], ...]:
    """The criteria that both were judged by, in the later one's order; policies differ in what they judge."""
    known: dict[tuple[str, str], list[Criterion]] = {}
    for each in before.criteria:
        known.setdefault((each.name, each.cell), []).append(each)
    pairs = [
        (of_before.pop(0), each)
        for each in after.criteria
        if (of_before := known.get((each.name, each.cell)))
    ]
    return tuple((other.title, _outcome(one), _outcome(other)) for one, other in pairs)


def _outcome(criterion: Criterion) -> str:
    return f"{criteria.measured(criterion)}, {signs.of_outcome(passed=criterion.passed).word}"


def _culprits(verification: Result) -> dict[tuple[str, str], PairResult]:
    """The culprits by site and cause."""
    return {
        (sentences.site(pair), pair.cause.code if pair.cause else ""): pair for pair in verification.culprits
    }


def _alone(
    verification: Result,
    own: dict[tuple[str, str], PairResult],
    others: dict[tuple[str, str], PairResult],
    *,
    fix: bool,
) -> tuple[str, ...]:
    """Culprits that the others are not, in a sentence for each cause."""
    rows = [pair for key, pair in own.items() if key not in others]
    found = grouping.together(verification, rows, sentences.deciding_cell(verification))
    return tuple(grouping.sentence(each, fix=fix) for each in found)


def _sites(
    before: CellResult, after: CellResult, was: Result, now: Result
) -> tuple[list[Change], list[str], list[str], list[tuple[str, str, str]]]:
    """Changes of sites both have, those only the later has, those only the earlier has, and what only one tells."""
    earlier = _by_name(before.layers)
    appeared = []
    changes = []
    alone = []
    met: set[int] = set()
    for pair in after.layers:
        found = [*earlier.get((pair.baseline, pair.candidate), ())]
        if pair.baseline is not None:  # the candidate's site may have been renamed
            found += earlier.get((pair.baseline, None), ())
        old = next((each for each in found if id(each) not in met), None)
        if old is None:
            appeared.append(sentences.site(pair))
            continue
        met.add(id(old))
        if _one_tells(old, pair):
            alone.append((f"{sentences.site(pair)}, {after.name}", _standing(old, was), _standing(pair, now)))
            continue
        change = _change(after.name, (old, was), (pair, now))
        if change is not None:
            changes.append(change)
    vanished = [sentences.site(old) for old in before.layers if id(old) not in met]
    return changes, appeared, vanished, alone


def _one_tells(before: PairResult, after: PairResult) -> bool:
    """Whether an error was measured in one result alone, as without a partner: how it changed nobody can say."""
    measured = [each.total is not None for each in (before, after)]
    partners = [each.status is not Status.UNMATCHED for each in (before, after)]
    return measured[0] != measured[1] and (before.status is after.status or partners[0] != partners[1])


def _standing(pair: PairResult, of: Result) -> str:
    status = signs.of_status(pair.status, of).word
    if pair.total is None:
        return status
    return f"{status}, total {wording.figure(_told(sentences.error(pair.total, sentences.metric_of(pair))))}"


def _by_name(rows: Iterable[PairResult]) -> dict[tuple[str | None, str | None], list[PairResult]]:
    """Rows by both names, and by the baseline's alone."""
    found: dict[tuple[str | None, str | None], list[PairResult]] = {}
    for pair in rows:
        for key in dict.fromkeys(((pair.baseline, pair.candidate), (pair.baseline, None))):
            found.setdefault(key, []).append(pair)
    return found


def _change(cell: str, earlier: tuple[PairResult, Result], later: tuple[PairResult, Result]) -> Change | None:
    """How a site changed; None where neither its status nor, by more than a factor of two, its error did."""
    (before, of_before), (after, of_after) = earlier, later
    metric = sentences.metric_of(after)
    order = {status: len(signs.BY_SEVERITY) - k for k, status in enumerate(signs.BY_SEVERITY)}
    steps = order[after.status] - order[before.status]
    kind = "intrinsic" if before.intrinsic is not None and after.intrinsic is not None else "total"
    was, now = (sentences.error(getattr(each, kind), metric) for each in (before, after))
    if steps and was == now:
        kind = "total"
        was, now = (sentences.error(each.total, metric) for each in (before, after))
    power = _power(was, now)
    if not steps and abs(power) <= math.log10(FACTOR):
        return None
    return Change(
        cell=cell,
        site=sentences.site(after),
        before=signs.of_status(before.status, of_before).word,
        after=signs.of_status(after.status, of_after).word,
        kind=kind,
        error_before=was,
        error_after=now,
        size=(steps, power),
    )


def _power(before: float, after: float) -> float:
    """By how many powers of ten an error grew; infinitely many from 0 or to what is no number."""
    if before == after or (math.isnan(before) and math.isnan(after)):
        return 0.0
    if math.isnan(after) or before == 0 or after == math.inf:
        return math.inf
    if math.isnan(before) or after == 0 or before == math.inf:
        return -math.inf
    if before < 0 or after < 0:  # no error is; a metric such as decibels may be
        return 0.0
    return math.log10(after) - math.log10(before)


@dataclass(frozen=True, slots=True)
class _Ground:
    """Something that two runs rest on besides the candidate: in what it `differs`, if both of them tell of it."""

    what: str
    differs: tuple[str, ...] = ()
    known: bool = True


def _grounds(before: Result, after: Result) -> Iterable[_Ground]:
    """What the two runs rest on: where that differs, figures do not compare one to one."""

    def changed(what: str, was: str, now: str) -> tuple[str, ...]:
        return (f"{what} {was}, now {now}",) if was != now else ()

    yield _Ground("baseline", changed("baseline", before.baseline.spec, after.baseline.spec))
    was, now = before.inputs, after.inputs
    known = bool(was.digest and now.digest)
    other = (known and was.digest != now.digest) or was.settings != now.settings
    yield _Ground("inputs", (f"inputs: {was.description}, now {now.description}",) if other else (), known)
    digests = before.weights.baseline_digest, after.weights.baseline_digest
    other = all(digests) and digests[0] != digests[1]
    yield _Ground("weights", ("the baseline's weights are others",) if other else (), all(digests))
    yield _Ground("policy", changed("policy", before.policy, after.policy))
    old, new = before.environment, after.environment
    yield _Ground("processor", changed("processor", old.processor, new.processor))
    names = dict.fromkeys((*old.packages, *new.packages))
    packages = (changed(n, old.packages.get(n, "absent"), new.packages.get(n, "absent")) for n in names)
    yield _Ground("versions", (*changed("Python", old.python, new.python), *itertools.chain(*packages)))
