"""What to say at the end of a comparison of initial values, and its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import listing
from reports.sections import Section, cut, lines, text
from reports.wording import counted, dimensions, figure, shown
from verifier.records import HEADLINE, Verdict, brief, tail

if TYPE_CHECKING:
    from verifier.initialisation.records import Initialisation, Statistics, TensorResult

SHOWN = 20  # rows; the file has them all
_NAME = 48  # characters of a name in a headline


def headline(result: Initialisation) -> str:
    """The verdict and what it rests on, in one sentence of at most `HEADLINE` characters."""
    counts = _counts(result)
    wrong = result.diverged
    if result.verdict is not Verdict.DIVERGED or not wrong:
        return brief(f"{result.verdict}: {result.reason or counts}")
    first = wrong[0]
    start = (
        f"{result.verdict}: {counted(len(wrong), 'tensor')} of {len(result.tensors)} "
        f"{'is' if len(wrong) == 1 else 'are'} initialised otherwise, first "
    )
    # What does not fit as a whole sentence stands in the list below.
    told = [f": {first.reason}{_explained(first)}", f": {first.reason}", _spread(first), ""]
    names = [_name(first), tail(_name(first), _NAME)]
    whole = (f"{start}{name}{why}" for why in told for name in names)
    return next((each for each in whole if len(each) <= HEADLINE), brief(f"{start}{names[-1]}"))


def _spread(each: TensorResult) -> str:
    """How widely a tensor's values are spread, and how widely they should be, where that differs."""
    expected, measured = _std(each.expected), _std(each.measured)
    return "" if expected == measured else f": std {measured}, expected {expected}"


def plain(result: Initialisation, *, out_dir: str | None = None) -> str:
    """The summary as text; it ends with a line break."""
    result = shown(result)
    return text(headline(result), sections(result, out_dir=out_dir))


def page(result: Initialisation) -> str:
    """The page of a comparison of initial values, the same bytes for the same record."""
    result = shown(result)
    mark, answer = listing.answer(result.verdict, headline(result))
    same = [each for each in result.tensors if each.standing == "identical"]
    alike = Section(
        f"The same bits: {len(same):,}",
        cut([(_name(each), dimensions(each.shape)) for each in same], listing.SHOWN),
        ("tensor", "shape"),
    )
    return listing.render(
        listing.Page(
            eyebrow="A comparison of initial values",
            title=f"{mark.word}: initial values of {result.candidate} against {result.baseline}",
            mark=mark,
            answer=answer,
            models=(("Baseline", result.baseline), ("Candidate", result.candidate)),
            panels=(),
            sections=(*sections(result, most=listing.SHOWN), *([alike] if same else [])),
            facts=listing.surroundings(result.environment),
            command=result.command,
            circumstances=listing.circumstances(result.created, result.seconds),
        )
    )


def sections(result: Initialisation, *, out_dir: str | None = None, most: int = SHOWN) -> list[Section]:
    """What is shown below the verdict, in order, with at most so many rows each; those without are left out."""
    tested = [each for each in result.tensors if each.standing == "same-distribution"]
    found = [
        Section(
            "Initialised otherwise",
            cut([_row(each) for each in result.diverged], most, ""),
            ("tensor", "shape", "expected std", "std", "p", "why"),
        ),
        Section(
            "Other bits, same distribution",
            cut([_row(each) for each in tested], most, ""),
            ("tensor", "shape", "expected std", "std", "p", "drawn from"),
        ),
        Section(
            "Not told",
            cut(
                [
                    (_name(each), dimensions(each.shape), each.reason)
                    for each in result.tensors
                    if each.standing in {"untold", "unmatched"}
                ],
                most,
                "",
            ),
        ),
        Section("Tensors", ((_counts(result),),)),
        Section("Method", ((_method(result),),) if result.draws else ()),
        Section("Notes", lines(result.notes)),
        Section("Report", ((out_dir,),) if out_dir else ()),
    ]
    return [section for section in found if section.rows]


def _counts(result: Initialisation) -> str:
    words = {
        "identical": ("holds the same bits", "hold the same bits"),
        "same-distribution": ("is drawn from the same distribution", "are drawn from the same distribution"),
        "diverged": ("is initialised otherwise", "are initialised otherwise"),
        "untold": ("is too small to tell", "are too small to tell"),
        "unmatched": ("has no partner", "have no partner"),
    }
    counts = {standing: sum(each.standing == standing for each in result.tensors) for standing in words}
    whole = len(result.tensors)
    if counts["identical"] == whole:
        every = "the one tensor holds" if whole == 1 else f"all {counted(whole, 'tensor')} hold"
        return f"{every} the same bits from seed {result.seed}"
    said = [f"{count} {words[standing][count != 1]}" for standing, count in counts.items() if count]
    return f"of {counted(whole, 'tensor')}, {', '.join(said)} (seed {result.seed})"


def _method(result: Initialisation) -> str:
    return (
        f"each model was drawn {counted(result.draws, 'time')}; initialised otherwise is what has a p, corrected for "
        f"all tests (Holm), of at most {result.error_rate:g}: so likely is it that models which are initialised "
        "alike have any such tensor"
    )


def _row(each: TensorResult) -> tuple[str, ...]:
    why = f"{each.reason}{_explained(each)}"
    if not each.reason:
        why = each.declared if each.declared and not each.contradicted else "what the baseline's is"
    return (
        _name(each),
        dimensions(each.shape),
        _std(each.expected),
        _std(each.measured),
        "-" if each.p_value is None else f"{each.p_value:.1e}",
        why,
    )


def _std(sample: Statistics | None) -> str:
    return figure(None if sample is None else sample.std)


def _explained(each: TensorResult) -> str:
    return f"; {each.explanation}" if each.explanation else ""


def _name(each: TensorResult) -> str:
    if each.candidate is None:
        return f"{_text(each.baseline)} (baseline only)"
    if each.baseline is None:
        return f"{each.candidate} (candidate only)"
    if each.baseline == each.candidate:
        return each.candidate
    return f"{each.candidate} (baseline: {_text(each.baseline)})"


def _text(recipe: str | tuple[str, ...] | None) -> str:
    return recipe if isinstance(recipe, str) else ", ".join(recipe or ())
