"""Culprits of one cause, together: what a report tells once, at however many sites it is."""

from __future__ import annotations

import itertools
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import sentences, wording
from verifier.records import LOADING, UNEXPLAINED, Status, brief, tail

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from verifier.records import CellResult, PairResult, Result

_NAME = 48  # characters of a site's name in a sentence
_LINES = 3  # that a cause has at most, where it does not fit beside the names of its sites
_VARIANTS = 3  # causes of one code that differ in their figures alone: more of them are told as one
_STATISTICS = frozenset({"running-mean", "running-var"})


@dataclass(frozen=True, slots=True)
class Group:
    """Culprits of one cause, in order of execution.

    `what` says what is wrong, `where` at how many sites of how many: `all 53 batch_norm sites`, or the one's name.
    `loading` says that their tensors were never loaded.
    """

    rows: tuple[PairResult, ...]
    what: str
    where: str
    loading: bool = False

    @property
    def first(self) -> PairResult:
        """The first in order of execution, which is shown for all."""
        return self.rows[0]

    @property
    def many(self) -> bool:
        """Whether it is more than one site."""
        return len(self.rows) > 1

    @property
    def worst(self) -> PairResult:
        """The one that is farthest off on identical inputs."""
        measured = [row for row in self.rows if row.intrinsic is not None]
        return max(
            measured, key=lambda row: (sentences.severity(row.intrinsic), -row.index), default=self.first
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of its causes, each once."""
        causes = [row.cause for row in self.rows if row.cause is not None]
        return tuple(dict.fromkeys(code for cause in causes for code in (cause.code, *cause.also)))

    @property
    def confirmed(self) -> bool:
        """Whether the cause is confirmed at every site."""
        return all(row.cause is not None and row.cause.confirmed for row in self.rows)

    @property
    def known(self) -> bool:
        """Whether it is a cause, and not what none was found for."""
        return bool(self.codes) and self.codes[0] != UNEXPLAINED

    @property
    def because(self) -> str:
        """What is wrong, how sure that is, and the codes."""
        return f"{self.what} ({self._sure}, {', '.join(self.codes)})" if self.codes else self.what

    @property
    def _sure(self) -> str:
        sure = "confirmed" if self.confirmed else "not confirmed"
        return f"{self.first.stage}, {sure}" if self.first.stage else sure

    def told(self, most: int) -> str:
        """`because` in as many characters: what is wrong is cut, and of the codes the first is kept."""
        if len(self.because) <= most or not self.codes:
            return brief(self.because, most)
        end = f" ({self._sure}, {tail(self.codes[0], _NAME)})"
        return brief(self.what, max(8, most - len(end))) + end


def groups(verification: Result) -> tuple[Group, ...]:
    """The culprits of the deciding cell by their causes, in order of the first of each; what is meant comes last."""
    ordered = sorted(verification.culprits, key=lambda each: each.stage == "quantisation")
    return together(verification, ordered, sentences.deciding_cell(verification))


def together(verification: Result, rows: Sequence[PairResult], cell: CellResult | None) -> tuple[Group, ...]:
    """Rows by their causes, in order of the first of each; `cell` says of how many sites they are some."""
    found: dict[Hashable, list[PairResult]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(row)
    loading = next((each.summary for each in verification.static if each.kind == LOADING), "")
    place = {id(row): k for k, row in enumerate(rows)}
    merged = [sorted(rows, key=lambda row: place[id(row)]) for rows in _variants(found.values())]
    return tuple(_group(rows, cell, loading) for rows in sorted(merged, key=lambda rows: place[id(rows[0])]))


def nothing_in_common(verification: Result) -> str:
    """That no site of the one model has a partner in the other, in a sentence; empty where some have."""
    covered = verification.coverage
    sites = covered.baseline_sites, covered.candidate_sites
    if covered.compared or covered.baseline_share or covered.candidate_share or min(sites) < _FEW:
        return ""
    return (
        f"the models have nothing in common: none of the baseline's {sites[0]:,} sites has a partner among the "
        f"candidate's {sites[1]:,}"
    )


_FEW = 3  # sites of a model of which it says nothing that none is paired


def title(verification: Result) -> str:
    """What the culprits of a verification are to it."""
    return "Beyond rounding, accepted by policy" if verification.verdict.passed else "Culprits"


def wrong(group: Group, row: PairResult, own: str | None = None) -> str:
    """That its sites are wrong, as the subject of a sentence that says why; `row` is the first that counts.

    `own` is what that is called, where its whole name is too long.
    """
    how = "less accurate" if row.cause is not None and row.cause.family == "precision" else "wrong"
    own = sentences.site(row) if own is None else own
    return f"{group.where} are {how}, first {own}" if group.many else f"{own} is {how}"


def line(group: Group, most: int) -> str:
    """Where and what is wrong, in as many characters: names are shortened before what is wrong is cut."""
    places = _places(group)
    where = next((each for each in places if len(f"{each}: {_why(group)}") <= most), places[-1])
    return f"{where}: {_why(group, most - len(f'{where}: '))}"


def told(group: Group, most: int, *, fix: bool = True) -> list[str]:
    """What is wrong, where, and what to change, in lines of as many characters: in one if that is enough."""
    places = _places(group)
    where = next((each for each in places if len(each) < most), places[-1])
    mended = f"fix: {remedy(group)}" if fix and remedy(group) else ""
    said = f"{where}: {_why(group)}"
    if len("; ".join(filter(None, (said, mended)))) <= most:
        return ["; ".join(filter(None, (said, mended)))]
    room = _LINES * (most - len(_BELOW[1]))
    lines = [said] if len(said) <= most else [f"{where}:", *below(_why(group, room), most)]
    return [*lines, *below(brief(mended, room), most)]


_BELOW = "  ", "    "  # before a line that belongs to the one above it, and before what that goes on with


def below(said: str, most: int) -> list[str]:
    """A sentence as lines of as many characters that belong to the one above them."""
    first, following = _BELOW
    return textwrap.wrap(
        said, most, initial_indent=first, subsequent_indent=following, break_on_hyphens=False
    )


def _places(group: Group) -> list[str]:
    """Where it is wrong, from the longest form to the shortest."""
    forms = sentences.forms(group.first)
    if group.many:
        return [*(f"{group.where}, first {each}" for each in forms), group.where]
    return [f"{each}, {group.first.op}" for each in forms]


def _why(group: Group, most: int | None = None) -> str:
    """What is wrong, or where nothing is known of that, how far off it is; in as many characters."""
    if group.codes or group.first.differences:
        return group.because if most is None else group.told(most)
    far = sentences.excess(group.worst, sentences.INTRINSIC)
    return far if most is None else brief(far, most)


def sentence(group: Group, *, fix: bool = True) -> str:
    """What is wrong, where, how far off it is at worst, and what to change."""
    if not group.many:
        return sentences.blame(group.first, fix=fix)
    said = [f"{group.where}, first {sentences.site(group.first, _NAME)}: {group.because}"]
    worst = group.worst
    if worst.intrinsic is not None:
        error = sentences.excess(worst, sentences.INTRINSIC, measured=True)
        said.append(f"up to {error}, at {sentences.name(worst)}")
    return "; ".join([*said, *([f"fix: {remedy(group)}"] if fix and remedy(group) else [])])


def remedy(group: Group) -> str:
    """What to change in the candidate, for all of them; empty where nothing is known."""
    cause = group.first.cause
    if cause is None:
        return ""
    return "load the baseline's tensors" if group.loading else cause.remedy


def names(group: Group, most: int) -> str:
    """The names of its sites, of many the first: `bn1, layer1.0.bn1 and 51 more`."""
    return wording.some([sentences.site(row, _NAME) for row in group.rows], most)


def _key(row: PairResult) -> Hashable:
    """What culprits of one cause have in common."""
    cause = row.cause
    if cause is None:
        return row.differences if row.differences else (None, row.status)
    if cause.code == UNEXPLAINED:
        return UNEXPLAINED
    if _is_loading(row):
        return LOADING
    # What is missing is told with the place where it is, which is another at each site.
    told = "" if row.status is Status.UNMATCHED else cause.summary
    for name in filter(None, (row.baseline, row.candidate)):
        told = told.replace(name, "")
    return cause.code, cause.also, cause.confirmed, cause.remedy, told


def _is_loading(row: PairResult) -> bool:
    """Whether all that is wrong with a site is tensors that were never loaded, of which small ones do not show it."""
    codes = (row.cause.code, *row.cause.also) if row.cause and row.cause.confirmed else ()
    unloaded = [code for code in codes if code.endswith("-not-loaded")]
    return bool(unloaded) and all(
        code in unloaded or code in _STATISTICS or code.endswith("-perturbed") for code in codes
    )


def _variants(found: Iterable[list[PairResult]]) -> list[list[PairResult]]:
    """Groups whose confirmed causes have the same codes, of which there are many, as one: figures differ alone."""
    alike: dict[Hashable, list[list[PairResult]]] = {}
    for rows in found:
        cause = rows[0].cause
        codes = (
            (cause.code, cause.also) if cause and cause.confirmed and not _is_loading(rows[0]) else id(rows)
        )
        alike.setdefault(codes, []).append(rows)
    return [
        rows
        for several in alike.values()
        for rows in ([list(itertools.chain(*several))] if len(several) > _VARIANTS else several)
    ]


def _group(rows: list[PairResult], cell: CellResult | None, loading: str) -> Group:
    first = rows[0]
    cause = first.cause
    if len(rows) == 1:
        what = cause.summary if cause else "; ".join(first.differences) or "no cause was looked for or found"
        return Group(tuple(rows), what, sentences.site(first))
    unloaded = _is_loading(first)
    if cause is None:
        what = "; ".join(first.differences) or "no cause was looked for or found"
    elif unloaded:
        what = loading or "tensors were not loaded"
    else:
        what = (
            f"{cause.summary}; likewise at the others, with other numbers"
            if _differing(rows, cell)
            else cause.summary
        )
    return Group(tuple(rows), what, _where(rows, cell), unloaded)


def _differing(rows: list[PairResult], cell: CellResult | None) -> bool:
    """Whether each of several sites is wrong by numbers of its own, and not by its name and its shape alone."""
    sites = [*rows, *(cell.layers if cell else ())]
    known = {name for row in sites for name in (row.baseline, row.candidate) if name}
    own = re.compile(r"[^\s,;:()]+")  # a word, in which a name may stand
    said = (_SHAPE.sub("", row.cause.summary) for row in rows if row.cause)
    return len({own.sub(lambda word: "" if word[0] in known else word[0], each) for each in said}) > 1


_SHAPE = re.compile(r"\(\d+,\)|\(\d+(, \d+)+\)|\b\d+( x \d+)+\b")


def _where(rows: list[PairResult], cell: CellResult | None) -> str:
    """At how many sites of how many they are: `all 53 batch_norm sites`, `3 of 53 batch_norm sites`, `21 sites`."""
    ops = {row.op for row in rows}
    if len(ops) > 1 or cell is None or any(row.kind != "site" for row in rows):
        return wording.counted(len(rows), "site")
    [op] = ops
    every = sum(row.op == op and row.baseline is not None for row in cell.layers)
    if any(row.baseline is None for row in rows) or every < len(rows):
        return wording.counted(len(rows), f"{op} site")
    return f"all {every:,} {op} sites" if every == len(rows) else f"{len(rows):,} of {every:,} {op} sites"
