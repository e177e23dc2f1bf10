"""What there is to report of a verification: each cause once, however many sites and cells it was found in."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from reports import besides, grouping, sentences, wording
from verifier.gate import places
from verifier.records import UNEXPLAINED, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reports.grouping import Group
    from verifier.gate.places import Place
    from verifier.records import CellResult, PairResult, Result

DIVERGED = "diverged"
"""The rule of what is no culprit: where two models first part if culprits were not looked for, or a mere verdict."""
UNCONFIRMED = "unconfirmed"
"""The rule of a culprit at which something differs, where causes were not tried, as with a recording."""
RULES = {
    UNCONFIRMED: (
        "something differs at the site, in its settings or in its tensors; whether that is why was not tried",
        "make it what the baseline has, or compare with a live baseline, with which causes are tried",
    ),
    DIVERGED: (
        "the two models diverge, and no site was found or looked for that is at fault",
        "see the report; --localise always looks for culprits",
    ),
}
"""Rules that are no causes: what each means, and what to do."""

_SURE = ("unexplained", "located", "confirmed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a verification ended: with a result, or with the reason why there is none.

    `spec` is the candidate's specification as it was given, or a policy's file that fails by itself; `kind` says
    which of the two a failure is.
    """

    spec: str
    result: Result | None = None
    failure: str = ""
    kind: str = "could not run"

    @classmethod
    def of_policy(cls, file: str, failures: Sequence[str]) -> Outcome:
        """What fails in a policy itself, whatever the models do."""
        return cls(file, failure=" ".join(failures), kind="policy")

    @classmethod
    def of(cls, result: Result) -> Outcome:
        """The outcome that a result is, its texts as they can be shown."""
        result = wording.shown(result)
        return cls(result.candidate.spec or result.candidate.type, result)

    @property
    def name(self) -> str:
        """What the candidate goes by: the same on every machine."""
        return places.without_home(self.spec)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, None where there is none."""
        return None if self.result is None else self.result.verdict

    @property
    def trouble(self) -> str:
        """Why there is no answer, in a sentence; empty where there is one."""
        if self.result is None:
            return f"{self.kind}: {self.failure}"
        return f"inconclusive: {self.result.reason}" if self.verdict is Verdict.INCONCLUSIVE else ""


class Spot(NamedTuple):
    """A line that several sites may share: where it is, None where nothing is known, and their names."""

    place: Place | None
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to report: which rule it breaks, what is to be said of it, and where it stands.

    Attributes:
        rule: The code of its cause, or one of `RULES`.
        message: One sentence.
        details: The same with figures and what to change.
        besides: What differs beside the culprits, said with the first of them.
        cells: Where it was found.
        spots: Where it stands in the candidate, each line once, as near to it as is known. Sites go by their names in
            the candidate, or in the baseline where the candidate has no such site; there may be none.
        baseline: The lines in the baseline, unless that is a recording.
        fingerprint: What it is known by: the same as long as candidate, first site and rule are, whatever lines and
            errors.
    """

    rule: str
    message: str
    details: str
    cells: tuple[str, ...]
    spots: tuple[Spot, ...]
    baseline: tuple[Place, ...]
    fingerprint: str
    besides: tuple[str, ...] = ()

    @property
    def place(self) -> Place | None:
        """Where its first site stands."""
        return self.spots[0].place

    @property
    def further(self) -> tuple[Place, ...]:
        """Where else it stands."""
        return tuple(each.place for each in self.spots[1:] if each.place is not None)

    @property
    def whole(self) -> str:
        """The message with what differs besides."""
        return "; ".join((self.message, *self.besides))


def findings(outcome: Outcome) -> tuple[Finding, ...]:
    """What is wrong, in order of execution; nothing where the two match or there is no answer (`Outcome.trouble`).

    That is the causes of the culprits of all cells. Where no cell has one, it is where they first part, and else the
    verdict.
    """
    result = outcome.result
    if result is None or result.verdict is not Verdict.DIVERGED:
        return ()
    diverged = [cell for cell in result.cells if cell.verdict is Verdict.DIVERGED]
    found = _by_pair((cell.name, row) for cell in diverged for row in cell.culprits)
    found = found or _by_pair((cell.name, row) for cell in diverged for row in blamed(cell))
    if not found:
        return (_of_verdict(outcome, result.reason),)
    known = {pair: max((row for _, row in rows), key=_sureness) for pair, rows in found.items()}
    cells = {pair: tuple(dict.fromkeys(cell for cell, _ in rows)) for pair, rows in found.items()}
    first = next((cell for cell in diverged if cell.culprits), None)
    return _of_rows(outcome, result, tuple(known.values()), first, cells)


def _of_rows(
    outcome: Outcome,
    result: Result,
    rows: Sequence[PairResult],
    cell: CellResult | None,
    cells: Mapping[_Pair, tuple[str, ...]],
) -> tuple[Finding, ...]:
    """A finding for each cause; without culprits, so that `cell` is None, for each row."""
    alone = [grouping.together(result, (row,), None)[0] for row in rows] if cell is None else ()
    found = [
        _of_group(
            outcome, group, tuple(dict.fromkeys(name for row in group.rows for name in cells[_pair(row)]))
        )
        for group in alone or grouping.together(result, rows, cell)
    ]
    return tuple(
        each if k else dataclasses.replace(each, besides=besides.lines(result))
        for k, each in enumerate(found)
    )


def blamed(cell: CellResult) -> tuple[PairResult, ...]:
    """The culprits of a cell that diverged, or its first divergence where none was found or looked for."""
    return cell.culprits or (() if cell.first_divergence is None else (cell.first_divergence,))


def in_cell(outcome: Outcome, cell: CellResult) -> tuple[Finding, ...]:
    """What is wrong in one cell that diverged, with the causes that other cells have shown."""
    if outcome.result is None:
        return ()
    causes = {
        _pair(row): row.cause
        for each in outcome.result.cells
        for row in sorted(each.culprits, key=_sureness)
        if row.cause is not None
    }
    rows = tuple(replace(row, cause=row.cause or causes.get(_pair(row))) for row in blamed(cell))
    cells = {_pair(row): (cell.name,) for row in rows}
    return _of_rows(outcome, outcome.result, rows, cell if cell.culprits else None, cells)


_Pair = tuple[str | None, str | None, str]


def _pair(row: PairResult) -> _Pair:
    return row.baseline, row.candidate, row.kind


def _by_pair(rows: Iterable[tuple[str, PairResult]]) -> dict[_Pair, list[tuple[str, PairResult]]]:
    found: dict[_Pair, list[tuple[str, PairResult]]] = {}
    for cell, row in rows:
        found.setdefault(_pair(row), []).append((cell, row))
    return found


def _of_group(outcome: Outcome, group: Group, cells: tuple[str, ...]) -> Finding:
    row = group.first
    wrong = grouping.wrong(group, row)
    if row.cause is not None:
        code, message = row.cause.code, f"{wrong}: {group.because}"
    elif row.status is Status.CULPRIT and row.differences:
        code, message = UNCONFIRMED, f"{wrong}: {group.what}"
    elif row.status is Status.CULPRIT:
        code, message = UNEXPLAINED, f"{wrong}, for no known reason"
    else:
        code, message = DIVERGED, f"the models first part at {sentences.site(row)}{_missing(row)}"
    recorded = outcome.result is not None and outcome.result.certificate is not None
    # Lines of a recording are those of the file as it then was, and may say anything today.
    baseline = () if recorded else tuple(places.of_source(each.baseline_source) for each in group.rows)
    return Finding(
        rule=code,
        message=message,
        details=grouping.sentence(group) if code != DIVERGED else sentences.divergence(row),
        cells=cells,
        spots=_spots(outcome, group, baseline),
        baseline=tuple(dict.fromkeys(each for each in baseline if each is not None)),
        fingerprint=_fingerprint(outcome.name, code, row.kind, row.baseline or "", row.candidate or ""),
    )


def _spots(outcome: Outcome, group: Group, baseline: tuple[Place | None, ...]) -> tuple[Spot, ...]:
    found: dict[Place | None, list[str]] = {}
    for row, other in itertools.zip_longest(group.rows, baseline):
        place = places.of_source(row.candidate_source) or places.of_spec(outcome.spec) or other
        found.setdefault(place, []).extend(filter(None, [row.candidate or row.baseline]))
    return tuple(Spot(place, tuple(dict.fromkeys(sites))) for place, sites in found.items())


def _missing(row: PairResult) -> str:
    """What stands on one side alone, without the figures behind it."""
    return f": {row.reason.partition('; ')[0]}" if row.status is Status.UNMATCHED and row.reason else ""


def _sureness(row: PairResult) -> int:
    return -1 if row.cause is None else _SURE.index(row.cause.status)


def _of_verdict(outcome: Outcome, reason: str) -> Finding:
    return Finding(
        rule=DIVERGED,
        message=f"the models diverge: {reason}",
        details=reason,
        cells=(),
        spots=(Spot(places.of_spec(outcome.spec), ()),),
        baseline=(),
        fingerprint=_fingerprint(outcome.name, DIVERGED),
    )


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", errors="backslashreplace")).hexdigest()[:32]


def rule(code: str) -> tuple[str, str]:
    """What a rule says and how to mend what breaks it."""
    if code in RULES:
        return RULES[code]
    from verifier.diagnose.codebook import known  # noqa: PLC0415 - the room imports torch, and seldom is one needed

    entry = known(code)
    return (code, "see the report") if entry is None else (entry.meaning, entry.fix)
