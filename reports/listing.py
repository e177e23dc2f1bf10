"""A page of titled lists: an answer, what was compared, charts, and rows. It has no script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import signs
from reports.curves import BOX
from reports.templating import rendered

if TYPE_CHECKING:
    from reports.curves import Panel
    from reports.sections import Section
    from reports.signs import Mark
    from verifier.records import Environment, Verdict

SHOWN = 2000  # rows of a list: a page that a browser scrolls at once


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template prints; `models` are pairs of a word and what it stands for."""

    eyebrow: str
    title: str
    mark: Mark
    answer: str
    models: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]
    command: str
    circumstances: str


def render(page: Page) -> str:
    """The page, the same bytes for the same contents. Everything in it is escaped."""
    return rendered("listing.html", ("style.css", "training.css"), page=page, box=BOX)


def answer(verdict: Verdict, headline: str) -> tuple[Mark, str]:
    """A headline in two: its verdict's mark, and what follows it."""
    mark = signs.of_verdict(verdict)
    return mark, headline.removeprefix(f"{mark.word}: ")


def surroundings(environment: Environment) -> tuple[tuple[str, str], ...]:
    """What a result rests on, as pairs of a word and a value."""
    commit = environment.commit + (", with changes" if environment.dirty else "")
    return (
        ("Python", environment.python),
        ("processor", environment.processor),
        ("threads", str(environment.threads)),
        *environment.packages.items(),
        *((("commit", commit),) if environment.commit else ()),
    )


def circumstances(created: str, seconds: float) -> str:
    """When, and how long it took; nothing where a record does not say."""
    return f"{created}, {seconds:.1f} s" if created else ""
