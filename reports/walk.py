"""Several networks as text and as a page that leads to the report of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import signs, wording
from reports.check import NOT_RUN, counts
from reports.listing import circumstances
from reports.sections import aligned
from reports.templating import rendered
from verifier.records import Verdict, brief

if TYPE_CHECKING:
    from reports.signs import Mark
    from verifier.records import Walk, WalkedNetwork

_HEADER = (
    "network",
    "verdict",
    "policy",
    "inputs",
    "parameters",
    "sites",
    "compared",
    "largest error",
    "seconds",
)
_LEFT = {0, 1, 2}
_AWAITED = signs.Mark("not reached", signs.VERDICT_SIGNS[Verdict.SKIPPED], "skipped")


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A network in the table: `page` is the address of its report, empty for none."""

    name: str
    mark: Mark
    said: str
    page: str
    policy: str
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template prints."""

    title: str
    headline: str
    tone: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[NetworkRow, ...]
    command: str
    circumstances: str


def render(found: Walk) -> str:
    """The page, the same bytes for the same record; it has no script."""
    found = wording.shown(found)
    said = headline(found)
    page = Page(
        title=said,
        headline=said,
        tone=_tone(found),
        words=("network", "verdict", "answer", "policy"),
        numbers=_HEADER[3:],
        rows=(
            *(_row(each) for each in found.networks),
            *(NetworkRow(name, _AWAITED, "", "", "-", ("-",) * 6) for name in found.awaited),
        ),
        command=found.command,
        circumstances=circumstances(found.created, found.seconds),
    )
    return rendered("walk.html", page=page)


def headline(found: Walk) -> str:
    """How all of them ended, in one sentence."""
    said = counts([each.verdict for each in found.networks], "networks", len(found.awaited))
    wrong = [each.name for each in found.networks if each.verdict is Verdict.DIVERGED]
    return brief(f"{said}; diverged: {', '.join(wrong)}" if wrong else said)


def table(found: Walk) -> str:
    """The networks as lines of text, a row each; the last ends with a line break."""
    rows = [(each.name, _mark(each).word, *_figures(each)) for each in found.networks]
    return "\n".join(aligned([_HEADER, *rows], _LEFT)) + "\n"


def total(found: Walk) -> str:
    """How many match, and how long all of them took."""
    verdicts = [each.verdict for each in found.networks]
    accepted = verdicts.count(Verdict.ACCEPTED)
    resting = f", {accepted} accepted by policy" if accepted else ""
    return (
        f"{verdicts.count(Verdict.MATCH)} of {len(verdicts)} networks match{resting}; {found.seconds:.0f} s"
    )


def _tone(found: Walk) -> str:
    verdicts = {each.verdict for each in found.networks}
    if verdicts & {None, Verdict.DIVERGED}:
        return "diverged"
    if Verdict.INCONCLUSIVE in verdicts or found.awaited:
        return "inconclusive"
    return "accepted" if Verdict.ACCEPTED in verdicts else "match"


def _mark(each: WalkedNetwork) -> Mark:
    return NOT_RUN if each.verdict is None else signs.of_verdict(each.verdict)


def _row(each: WalkedNetwork) -> NetworkRow:
    mark = _mark(each)
    said = f"{each.said}; {each.earlier}" if each.earlier else each.said
    policy, *numbers = _figures(each)
    return NetworkRow(
        each.name, mark, said.removeprefix(f"{mark.word}: "), each.report, policy, tuple(numbers)
    )


def _figures(each: WalkedNetwork) -> tuple[str, ...]:
    return (
        each.policy,
        "x".join(map(str, each.inputs)) or "-",
        _number(each.parameters),
        _number(each.sites),
        "-" if each.compared is None else wording.share(each.compared),
        wording.figure(each.largest),
        f"{each.seconds:.1f}",
    )


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
