"""An experiment as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import listing, results, signs, wording
from reports.confusions import Confusion, compared, confusion
from reports.curves import BOX, Curve, LineChart, Panel, chart, panels
from reports.sections import aligned
from reports.templating import rendered
from verifier.records import Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reports.signs import Mark
    from verifier.training.records import Experiment, Learner, SampleImage

_UNCOMPARED = signs.Mark("not compared", signs.VERDICT_SIGNS[Verdict.SKIPPED], "skipped")


@dataclass(frozen=True, slots=True)
class Example:
    """A sample with what each network says of it, and whether rightly; `wrong` if one of them errs."""

    png: str
    label: str
    said: tuple[tuple[bool, str], ...]
    wrong: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template prints."""

    title: str
    mark: Mark
    answer: str
    told: tuple[str, ...]
    header: tuple[str, ...]
    learners: tuple[tuple[str, ...], ...]
    panels: tuple[Panel, ...]
    confusions: tuple[tuple[Confusion, ...], ...]
    differences: bool
    pictures: tuple[Example, ...]
    facts: tuple[tuple[str, str], ...]
    command: str
    circumstances: str


def render(found: Experiment) -> str:
    """The page, the same bytes for the same experiment. Everything in it is escaped."""
    return rendered("training.html", ("style.css", "training.css"), page=page(wording.shown(found)), box=BOX)


def plain(found: Experiment, directory: str) -> str:
    """The summary an experiment ends with, as text, its verdict first; it ends with a line break."""
    found = wording.shown(found)
    mark, said = verdict(found)
    rows = [("network", "parameters", "test accuracy", "time")]
    rows += [
        (
            _named(each),
            f"{each.parameters:,}",
            f"{each.accuracy:.2%}",
            f"{sum(e.seconds for e in each.epochs):.1f} s",
        )
        for each in found.learners
    ]
    return (
        "\n".join(
            [
                f"{mark.word}: {said}",
                "",
                *aligned(rows),
                "",
                *_twins(found),
                *_notes(found),
                f"Report: {directory}/training.html",
            ]
        )
        + "\n"
    )


def page(found: Experiment) -> Page:
    """The page of an experiment."""
    mark, answer = verdict(found)
    return Page(
        title=f"{mark.word}: {', '.join(_names(found))} trained on {found.data}",
        mark=mark,
        answer=answer,
        told=(
            f"{wording.counted(found.epochs, 'epoch')} of {wording.counted(found.training_images, 'image')}: "
            f"{found.source}.",
            f"Recipe: {found.recipe_told}.",
            *_scales(found),
            *_twins(found),
            *_notes(found),
        ),
        header=(
            "network",
            "role",
            "depth",
            "parameters",
            "test accuracy",
            "published",
            "time",
            "images/s",
            "weights",
        ),
        learners=tuple(_learner(each) for each in found.learners),
        panels=panels(_charts(found)),
        confusions=tuple(_confusions(found)),
        differences=len(_distinct(found)) > 1,
        pictures=tuple(_picture(found, each) for each in found.samples),
        facts=(
            ("device", found.device),
            ("seed", str(found.seed)),
            *listing.surroundings(found.environment),
        ),
        command=found.command,
        circumstances=listing.circumstances(found.created, found.seconds),
    )


def verdict(found: Experiment) -> tuple[Mark, str]:
    """Whether networks learnt as their twins did, bit for bit, and the best of them.

    Equal bits are a match. Others are left open: rounding alone makes some, and `train-parity` tells it from a fault.
    """
    best = max(found.learners, key=lambda each: each.accuracy)
    told = f"{_named(best)} tells {best.accuracy:.2%} of {found.test_images:,} test images rightly"
    other = [each for each in found.twins if each.first_other_epoch is not None or not each.same_weights]
    alone = [name for name in _names(found) if name not in {each.name for each in found.twins}]
    if other:
        since = other[0].first_other_epoch
        when = "the final weights" if since is None else f"the numbers from epoch {since} on"
        more = f", and of {len(other) - 1} more" if other[1:] else ""
        mark = signs.of_verdict(Verdict.INCONCLUSIVE)
        said = f"{when} of {other[0].name}{more} are not its twin's; train-parity tells rounding from a fault"
    elif alone:
        mark, said = _UNCOMPARED, f"{', '.join(alone)} trained without a twin"
    else:
        mark = signs.of_verdict(Verdict.MATCH)
        several = f"{len(found.twins)} networks learn as their baseline twins do"
        one = f"{found.twins[0].name} learns as its baseline twin does"
        said = f"{several if found.twins[1:] else one}, bit for bit"
    return mark, brief(f"{said}; {told}")


def _names(found: Experiment) -> list[str]:
    return list(dict.fromkeys(each.name for each in found.learners))


def _named(each: Learner) -> str:
    return f"{each.name} ({each.role})"


def _twins(found: Experiment) -> list[str]:
    """How twins learnt, in one sentence for all that did so."""
    said: dict[str, list[str]] = {}
    for each in found.twins:
        if each.first_other_epoch is None:
            weights = "and so are the final weights" if each.same_weights else "the final weights are not"
            how = f"the baseline twin's curves are the same bit for bit, {weights}."
        else:
            how = f"from epoch {each.first_other_epoch} on the baseline twin's curves are others."
        said.setdefault(how, []).append(each.name)
    return [f"{', '.join(names)}: {how}" for how, names in said.items()]


def _scales(found: Experiment) -> list[str]:
    sizes = ", ".join(map(str, found.test_scales))
    return [f"Tested at {sizes} pixels; the mean of the scores tells the class."] if sizes else []


def _notes(found: Experiment) -> list[str]:
    """Where networks went on in other surroundings."""
    return [f"Note: {note}." for note in found.notes]


def _distinct(found: Experiment) -> list[Learner]:
    """One network of each pair of twins that ended with the same answers, else both."""
    kept: list[Learner] = []
    for each in found.learners:
        if not any(one.name == each.name and one.confusion == each.confusion for one in kept):
            kept.append(each)
    return kept


def _learner(each: Learner) -> tuple[str, ...]:
    seconds = sum(epoch.seconds for epoch in each.epochs)
    images = sum(epoch.seconds * epoch.images_per_second for epoch in each.epochs)
    return (
        each.name,
        each.role,
        "-" if each.depth is None else str(each.depth),
        f"{each.parameters:,}",
        f"{each.accuracy:.2%}",
        "; ".join(f"{share:.2%} ({source})" for share, source in each.published) or "-",
        f"{seconds:.1f} s",
        f"{images / seconds if seconds else 0:,.0f}",
        f"{each.weights_file}, sha256 {each.digest[:12]}",
    )


def _charts(found: Experiment) -> Iterator[LineChart]:
    names = _names(found)
    same = {each.name for each in found.twins if each.first_other_epoch is None}

    def series(measure: str, what: str, *, test: bool) -> Iterator[Curve]:
        for each in found.learners:
            if each.name in same and each.role == "baseline":
                continue  # the candidate's curve, once more
            whose = "both twins" if each.name in same else each.role
            points = tuple((float(e.epoch), float(getattr(e, measure))) for e in each.epochs)
            style = "dashed" if each.role == "baseline" else "solid"
            hue = 2 * names.index(each.name) + test
            yield Curve(f"{each.name} {whose}, {what}", points, style, hue)

    yield chart(
        "Loss",
        "epoch",
        "cross-entropy, nats",
        [*series("train_loss", "training", test=False), *series("test_loss", "test", test=True)],
        powers=True,
    )
    yield chart(
        "Accuracy",
        "epoch",
        "images told rightly",
        [*series("train_accuracy", "training", test=False), *series("test_accuracy", "test", test=True)],
        percent=True,
    )
    first = found.learners[0]
    yield chart(
        "Learning rate",
        "epoch",
        "at the start of the epoch",
        [Curve("learning rate", tuple((float(e.epoch), e.lr) for e in first.epochs))],
    )
    yield from results.charts(found)


def _confusions(found: Experiment) -> Iterator[tuple[Confusion, ...]]:
    """The matrix of one network; of several the first's beside each other one's, with their difference."""
    first, *others = _distinct(found)
    if not others:
        yield (confusion(_named(first), found.classes, first.confusion),)
    for each in others:
        apart = first.name != each.name
        names = (first.name, each.name) if apart else (_named(first), _named(each))
        yield compared(names, found.classes, (first.confusion, each.confusion))


def _picture(found: Experiment, sample: SampleImage) -> Example:
    said = []
    answers = list(zip(found.learners, sample.predictions, strict=True))
    for each, (called, share) in answers:
        same = [one.role for one, answer in answers if (one.name, answer) == (each.name, (called, share))]
        if each.role == same[0]:  # a twin that says the same is told with it
            who = each.name if len(same) > 1 else _named(each)
            what = found.classes[called] if called < len(found.classes) else str(called)
            said.append((called == sample.label, f"{who}: {what} ({share:.1%})"))
    wrong = any(called != sample.label for called, _ in sample.predictions)
    return Example(sample.png, found.classes[sample.label], tuple(said), wrong)
