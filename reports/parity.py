"""The summary that a comparison of two trainings ends with."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from reports import sentences, wording
from reports.sections import Section, lines, text
from reports.terminal import SHOWN, coloured
from verifier.records import UNEXPLAINED, Verdict, brief

_LONGEST = 200  # characters of a headline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from verifier.training.records import Divergence, TrainingParity


def summary(found: TrainingParity, *, out_dir: str | None = None) -> RenderableType:
    """The summary in colour, for `rich.console.Console.print`."""
    found = wording.shown(found)
    return coloured(headline(found), found.verdict, sections(found, out_dir=out_dir))


def plain(found: TrainingParity, *, out_dir: str | None = None) -> str:
    """The summary as text, for pipes, logs and files; it ends with a line break."""
    found = wording.shown(found)
    return text(headline(found), sections(found, out_dir=out_dir))


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


def sections(found: TrainingParity, *, out_dir: str | None) -> list[Section]:
    """What both summaries show below the verdict."""
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
                for each in found.culprits[:SHOWN]
            )
            + (
                (("", "", "", f"and {len(found.culprits) - SHOWN} more", ""),)
                if len(found.culprits) > SHOWN
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
        Section("Saved", lines([out_dir] if out_dir is not None else [])),
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
