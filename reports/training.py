"""An experiment as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import results, wording
from reports.confusions import Confusion, compared, confusion
from reports.curves import BOX, Curve, LineChart, chart
from reports.sections import aligned
from reports.templating import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.training.records import Experiment, Learner, SampleImage


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
    headline: str
    told: tuple[str, ...]
    header: tuple[str, ...]
    learners: tuple[tuple[str, ...], ...]
    charts: tuple[LineChart, ...]
    confusions: tuple[tuple[Confusion, ...], ...]
    pictures: tuple[Example, ...]
    facts: tuple[tuple[str, str], ...]
    command: str


def render(found: Experiment) -> str:
    """The page, the same bytes for the same experiment. Everything in it is escaped."""
    return environment().get_template("training.html").render(page=page(wording.shown(found)), box=BOX)


def plain(found: Experiment, directory: str) -> str:
    """The summary an experiment ends with, as text; it ends with a line break."""
    found = wording.shown(found)
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
        "\n".join([*aligned(rows), "", *_twins(found), *_notes(found), f"Report: {directory}/training.html"])
        + "\n"
    )


def page(found: Experiment) -> Page:
    """The page of an experiment."""
    best = max(found.learners, key=lambda each: each.accuracy)
    names = ", ".join(dict.fromkeys(each.name for each in found.learners))
    return Page(
        title=f"{names} on {found.data}",
        headline=f"{_named(best)} tells {best.accuracy:.2%} of {found.test_images:,} test images rightly",
        told=(
            f"{found.epochs} epochs of {found.training_images:,} images: {found.source}.",
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
        charts=tuple(_charts(found)),
        confusions=tuple(_confusions(found)),
        pictures=tuple(_picture(found, each) for each in found.samples),
        facts=(
            ("device", found.device),
            ("seed", str(found.seed)),
            ("Python", found.environment.python),
            ("processor", found.environment.processor),
            ("threads", str(found.environment.threads)),
            *found.environment.packages.items(),
            ("when", f"{found.created}, {found.seconds:.1f} s"),
        ),
        command=found.command,
    )


def _named(each: Learner) -> str:
    return f"{each.name} ({each.role})"


def _twins(found: Experiment) -> list[str]:
    said = []
    for each in found.twins:
        name = each.name
        if each.first_other_epoch is None:
            weights = "and so are the final weights" if each.same_weights else "the final weights are not"
            said.append(f"{name}: the baseline twin's curves are the same bit for bit, {weights}.")
        else:
            said.append(
                f"{name}: from epoch {each.first_other_epoch} on the baseline twin's curves are others."
            )
    return said


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
    names = list(dict.fromkeys(each.name for each in found.learners))

    def series(measure: str, what: str, *, test: bool) -> Iterator[Curve]:
        for each in found.learners:
            points = tuple((float(e.epoch), float(getattr(e, measure))) for e in each.epochs)
            style = "dashed" if each.role == "baseline" else "solid"
            hue = 2 * names.index(each.name) + test
            yield Curve(f"{each.name} {each.role}, {what}", points, style, hue)

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
