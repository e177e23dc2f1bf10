"""What there is to report of a verification: each culprit once, however many cells it was found in."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from reports import besides, sentences, wording
from verifier.gate import places
from verifier.records import UNEXPLAINED, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to report: which rule it breaks, what is to be said of it, and where it stands.

    Attributes:
        rule: The code of its cause, or one of `RULES`.
        message: One sentence.
        details: The same with figures and what to change.
        besides: What differs beside the culprits, said with the first of them.
        site: Its name in the candidate, or in the baseline where the candidate has no such site; empty for none.
        cells: Where it was found.
        place: The line in the candidate, or as near to it as is known; None where nothing is.
        baseline: The line in the baseline, unless that is a recording.
        fingerprint: What it is known by: the same as long as candidate, site and rule are, whatever lines and errors.
    """

    rule: str
    message: str
    details: str
    site: str
    cells: tuple[str, ...]
    place: Place | None
    baseline: Place | None
    fingerprint: str
    besides: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """The message with what differs besides."""
        return "; ".join((self.message, *self.besides))


def findings(outcome: Outcome) -> tuple[Finding, ...]:
    """What is wrong, in order of execution; nothing where the two match or there is no answer (`Outcome.trouble`).

    That is the culprits of all cells. Where no cell has one, it is where they first part, and else the verdict.
    """
    result = outcome.result
    if result is None or result.verdict is not Verdict.DIVERGED:
        return ()
    diverged = [cell for cell in result.cells if cell.verdict is Verdict.DIVERGED]
    found = _by_pair((cell.name, row) for cell in diverged for row in cell.culprits)
    found = found or _by_pair((cell.name, row) for cell in diverged for row in blamed(cell))
    if not found:
        return (_of_verdict(outcome, result.reason),)
    return _with_besides(
        result,
        [
            _of_row(
                outcome,
                max((row for _, row in rows), key=_sureness),
                tuple(dict.fromkeys(cell for cell, _ in rows)),
            )
            for rows in found.values()
        ],
    )


def _with_besides(result: Result, found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(
        each if k else dataclasses.replace(each, besides=besides.lines(result))
        for k, each in enumerate(found)
    )


def blamed(cell: CellResult) -> tuple[PairResult, ...]:
    """The culprits of a cell that diverged, or its first divergence where none was found or looked for."""
    return cell.culprits or (() if cell.first_divergence is None else (cell.first_divergence,))


def in_cell(outcome: Outcome, cell: CellResult) -> tuple[Finding, ...]:
    """What is wrong in one cell that diverged, with the causes that other cells have shown."""
    causes = {
        _pair(row): row.cause
        for each in (outcome.result.cells if outcome.result else ())
        for row in sorted(each.culprits, key=_sureness)
        if row.cause is not None
    }
    rows = (replace(row, cause=row.cause or causes.get(_pair(row))) for row in blamed(cell))
    found = [_of_row(outcome, row, (cell.name,)) for row in rows]
    return tuple(found) if outcome.result is None else _with_besides(outcome.result, found)


_Pair = tuple[str | None, str | None, str]


def _pair(row: PairResult) -> _Pair:
    return row.baseline, row.candidate, row.kind


def _by_pair(rows: Iterable[tuple[str, PairResult]]) -> dict[_Pair, list[tuple[str, PairResult]]]:
    found: dict[_Pair, list[tuple[str, PairResult]]] = {}
    for cell, row in rows:
        found.setdefault(_pair(row), []).append((cell, row))
    return found


def _of_row(outcome: Outcome, row: PairResult, cells: tuple[str, ...]) -> Finding:
    where = sentences.site(row)
    if row.cause is not None:
        what = "less accurate" if row.cause.family == "precision" else "wrong"
        code, message = row.cause.code, f"{where} is {what}: {sentences.because(row.cause)}"
    elif row.status is Status.CULPRIT and row.differences:
        code, message = UNCONFIRMED, f"{where} is wrong: {'; '.join(row.differences)}"
    elif row.status is Status.CULPRIT:
        code, message = UNEXPLAINED, f"{where} is wrong, for no known reason"
    else:
        code, message = DIVERGED, f"the models first part at {where}{_missing(row)}"
    recorded = outcome.result is not None and outcome.result.certificate is not None
    candidate = places.of_source(row.candidate_source)
    # Lines of a recording are those of the file as it then was, and may say anything today.
    baseline = None if recorded else places.of_source(row.baseline_source)
    return Finding(
        rule=code,
        message=message,
        details=sentences.blame(row) if code != DIVERGED else sentences.divergence(row),
        site=row.candidate or row.baseline or "",
        cells=cells,
        place=candidate or places.of_spec(outcome.spec) or baseline,
        baseline=baseline,
        fingerprint=_fingerprint(outcome.name, code, row.kind, row.baseline or "", row.candidate or ""),
    )


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
        site="",
        cells=(),
        place=places.of_spec(outcome.spec),
        baseline=None,
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
