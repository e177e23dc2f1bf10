"""The summary that a comparison of two trainings ends with, and its page."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from reports import listing, sentences, wording
from reports.curves import Curve, LineChart, chart, panels
from reports.sections import Section, cut, lines, text
from reports.terminal import SHOWN, coloured
from verifier.records import UNEXPLAINED, Verdict, brief

_LONGEST = 200  # characters of a headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from verifier.training.records import Divergence, TrainingParity


def summary(found: TrainingParity, *, page: str | None = None) -> RenderableType:
    """The summary in colour, for `rich.console.Console.print`; `page` is where its page lies."""
    found = wording.shown(found)
    return coloured(headline(found), found.verdict, sections(found, page=page))


def plain(found: TrainingParity, *, page: str | None = None) -> str:
    """The summary as text, for pipes, logs and files; it ends with a line break."""
    found = wording.shown(found)
    return text(headline(found), sections(found, page=page))


def page(found: TrainingParity) -> str:
    """The page of a comparison of two trainings, the same bytes for the same record."""
    found = wording.shown(found)
    mark, answer = listing.answer(found.verdict, headline(found))
    return listing.render(
        listing.Page(
            eyebrow="Two trainings side by side",
            title=f"{mark.word}: training of {found.candidate.spec} against {found.baseline.spec}",
            mark=mark,
            answer=answer,
            models=(("Baseline", found.baseline.spec), ("Candidate", found.candidate.spec)),
            panels=panels(_charts(found)),
            sections=(*sections(found, most=listing.SHOWN), *_tensors(found)),
            facts=listing.surroundings(found.environment),
            command=found.command,
            circumstances=listing.circumstances(found.created, found.seconds),
        )
    )


def headline(found: TrainingParity) -> str:
    """The verdict and what it rests on, in one sentence of at most `HEADLINE` characters."""
    return brief(_headline(found))


def _headline(found: TrainingParity) -> str:
    steps = wording.counted(found.steps, "step")
    if found.first_divergence is not None:
        others = len(found.culprits) - 1
        apart = "differs by itself" if others == 1 else "differ by themselves"
        more = f"; {wording.counted(others, 'further tensor')} {apart}"
        said, cause = f"{found.verdict}: {place(found.first_divergence)}: ", why(found.first_divergence)
        more = more if others else ""
        if others and len(said) + len(cause) + len(more) > _LONGEST:
            more = f"; and {others} more"
        return f"{said}{_within(cause, _LONGEST - len(said) - len(more))}{more}"
    if found.verdict is not Verdict.MATCH:
        return f"{found.verdict}: {found.reason}"
    if found.bit_exact:
        return f"{found.verdict}: {steps} of both trainings agree in every number, bit for bit"
    errors = [(error, row) for row in found.rows for error in row.intrinsic if error is not None]
    worst = _largest(error for error, row in errors if error <= row.allowed.limit)
    # What is beyond its limit in a match goes another way to the same weights, as a note says.
    agree = (
        "agree in every phase"
        if all(e <= row.allowed.limit for e, row in errors)
        else "lead to the same weights"
    )
    drifts = (error for row in found.rows if row.what == "weight" for error in row.total)
    drift = _largest(error for error in drifts if error is not None and math.isfinite(error))
    # Of a tensor that is 0 on one side alone there is no relative error, and nothing agrees "to infinity".
    alone = (
        f", to {wording.figure(worst)} on identical inputs"
        if worst is not None and math.isfinite(worst)
        else ""
    )
    apart = (
        f"; in free training rounding has taken the weights {wording.figure(drift)} apart"
        if drift is not None and math.isfinite(drift)
        else ""
    )
    return f"{found.verdict}: {steps} {agree}{alone}{apart}"


def _within(text: str, length: int) -> str:
    """A cause in so many characters, cut where a part of it ends; the whole stands below the headline."""
    if len(text) <= length:
        return text
    cause, bracket, sure = text.rpartition(" (")
    room = length - len(bracket) - len(sure) - 3
    ends = [match.start() for match in re.finditer("[:;,] ", cause) if match.start() <= room]
    return f"{cause[: ends[-1]] if ends else cause[: max(room, 0)]}...{bracket}{sure}"


def place(each: Divergence) -> str:
    """Step, phase and tensor."""
    batch = f" (batch {each.batch})" if each.batch != each.step else ""
    candidate = "" if each.candidate == each.tensor else f" (candidate: {each.candidate})"
    what = "" if each.what == each.tensor else f"{each.what} of "
    return f"step {each.step}{batch}, {each.phase}, {what}{each.tensor}{candidate}"


def why(each: Divergence) -> str:
    """The cause as far as it is known, else the numbers."""
    if each.cause is None:
        return each.reason
    if each.cause.code == UNEXPLAINED:
        return f"{each.reason} ({UNEXPLAINED})"
    sure = "confirmed" if each.cause.confirmed else "suspected"
    return f"{each.cause.summary} ({sure}, {each.cause.code})"


def sections(found: TrainingParity, *, page: str | None = None, most: int = SHOWN) -> list[Section]:
    """What is shown below the verdict, with at most so many of the tensors that differ."""
    first = found.first_divergence
    every = [
        Section(
            "First divergence",
            lines([] if first is None else [f"{place(first)}: {first.reason}{_numbers(first)}", why(first)]),
        ),
        Section(
            "Tensors that differ by themselves",
            tuple(
                (f"step {each.step}", str(each.phase), each.what, each.tensor, why(each))
                for each in found.culprits[:most]
            )
            + (
                (("", "", "", f"and {len(found.culprits) - most} more", ""),)
                if len(found.culprits) > most
                else ()
            ),
            ("when", "phase", "what", "tensor", "why"),
        ),
        Section(
            "Largest relative errors",
            tuple(_phases(found)),
            ("phase", "tensors", "on identical inputs", "allowed", "in free training"),
        ),
        Section(
            "Loss and rate",
            tuple(_course(found)),
            ("batch", "baseline's loss", "candidate's", "baseline's next rate", "candidate's"),
        ),
        Section(
            "Procedures",
            (
                ("baseline", found.baseline.spec, found.baseline_procedure),
                ("candidate", found.candidate.spec, found.candidate_procedure),
            ),
        ),
        Section(
            "Setting",
            lines(
                [
                    f"{found.device}, {found.dtype}, seed {found.seed}, {found.data}, {found.seconds:.1f} s",
                    sentences.coverage(found.coverage),
                ]
            ),
        ),
        Section("Notes", lines(found.notes)),
        Section("Report", lines([page] if page is not None else [])),
    ]
    return [section for section in every if section.rows]


def _phases(found: TrainingParity) -> Iterable[tuple[str, ...]]:
    for phase in dict.fromkeys(row.phase for row in found.rows):
        rows = [row for row in found.rows if row.phase is phase]
        yield (
            str(phase),
            str(len(rows)),
            wording.figure(_largest(error for row in rows for error in row.intrinsic)),
            wording.figure(rows[0].allowed.limit),
            wording.figure(_largest(error for row in rows for error in row.total)),
        )


def _tensors(found: TrainingParity) -> Iterator[Section]:
    """Every tensor of every phase with its largest errors."""
    header = ("phase", "what", "tensor", "on identical inputs", "allowed", "in free training", "beyond since")
    rows = [
        (
            str(row.phase),
            row.what,
            row.tensor,
            wording.figure(_largest(row.intrinsic)),
            wording.figure(row.allowed.limit),
            wording.figure(_largest(row.total)),
            "" if row.first_step is None else f"step {row.first_step}",
        )
        for row in found.rows
    ]
    if rows:
        yield Section(f"Every tensor: {len(rows):,}", cut(rows, listing.SHOWN), header)


def _charts(found: TrainingParity) -> Iterator[LineChart]:
    """Both losses over batches, and how far weights and steps are apart, where anything is."""
    if found.losses:
        sides = (("baseline", "solid"), ("candidate", "dashed"))
        curves = [
            Curve(name, tuple((float(k), pair[side]) for k, pair in enumerate(found.losses)), style, side)
            for side, (name, style) in enumerate(sides)
        ]
        yield chart("Loss in free training", "batch", "as the backward pass starts from it", curves)
    weights = [row.total for row in found.rows if row.what == "weight"]
    apart = [
        Curve("on identical inputs, any phase", _over_batches([row.intrinsic for row in found.rows])),
        Curve("weights, in free training", _over_batches(weights), "dashed", 1),
    ]
    shown = [each for each in apart if any(0 < y < math.inf for _, y in each.points)]
    if shown:
        yield chart("Largest relative error", "batch", "no point where all is exact", shown, powers=True)


def _over_batches(rows: Iterable[tuple[float | None, ...]]) -> tuple[tuple[float, float], ...]:
    """The largest error of each batch."""
    columns = enumerate(itertools.zip_longest(*rows))
    largest = ((batch, _largest(errors)) for batch, errors in columns)
    return tuple((float(batch), error) for batch, error in largest if error is not None)


def _course(found: TrainingParity) -> Iterable[tuple[str, ...]]:
    """The first batch, the last, and one between."""
    both = list(zip(found.losses, found.rates, strict=False))
    for batch in sorted({0, len(both) // 2, len(both) - 1} if both else ()):
        (b, c), rates = both[batch]
        yield (str(batch), f"{b:.6g}", f"{c:.6g}", *(f"{rate:.6g}" for rate in rates))


def _numbers(each: Divergence) -> str:
    figures = each.comparison
    if figures is None or figures.max_abs_index is None:
        return ""
    return f"; largest absolute difference {wording.figure(figures.max_abs)} at {figures.max_abs_index}"


def _largest(errors: Iterable[float | None]) -> float | None:
    return max((error for error in errors if error is not None), default=None)
