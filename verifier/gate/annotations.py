"""What GitHub Actions shows beside the code and on the job's page: workflow commands, and the job summary.

The commands: docs.github.com, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reports import markdown, wording
from verifier.gate.findings import findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.gate.findings import Outcome
    from verifier.gate.places import Place

_MOST = 10  # annotations of a kind that GitHub shows of a step
_PLACES = 5  # further lines that an annotation names
_ROOM = 1 << 20  # bytes that the summary of a step may have


def wanted() -> bool:
    """Whether this runs in GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def commands(outcomes: Sequence[Outcome]) -> str:
    """A line for each cause and each missing answer; of too many the last says how many more."""
    lines = [line for outcome in outcomes for line in _of(outcome)]
    if len(lines) > _MOST:
        rest = len(lines) - (_MOST - 1)
        lines = [*lines[: _MOST - 1], _command(f"and {rest} more: see the report", "", None)]
    return "".join(f"{line}\n" for line in lines)


def _of(outcome: Outcome) -> Iterator[str]:
    if outcome.trouble:
        yield _command(outcome.trouble, outcome.name, None)
    for each in findings(outcome):
        where = f" (in {', '.join(each.cells)})" if each.cells else ""
        also = [f"also at {wording.some([*map(str, each.further)], _PLACES)}"] if each.further else []
        said = "\n".join((f"{each.message}{where}", *also, *each.besides))
        yield _command(said, f"{outcome.name}: {each.rule}", each.place)


def _command(message: str, title: str, place: Place | None) -> str:
    fields = {
        "file": place.file if place else "",
        "line": "" if place is None or place.line is None else str(place.line),
        "title": title,
    }
    said = ",".join(f"{name}={_property(value)}" for name, value in fields.items() if value)
    return f"::error{f' {said}' if said else ''}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(outcomes: Sequence[Outcome], room: int = _ROOM) -> str:
    """The job summary as Markdown, in at most `room` bytes: whole summaries, as many as fit."""
    kept, left = [], room
    for outcome in outcomes:
        if outcome.result is None:
            text = f"**{markdown.text(outcome.name)}: {markdown.text(outcome.trouble)}**\n"
        else:
            text = markdown.summary(outcome.result)
        size = len(f"{text}\n".encode(errors="backslashreplace"))
        if size <= left:
            kept.append(f"{text}\n")
            left -= size
    return "".join(kept)


def append_summary(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Append the summary to the file that GitHub names; a sentence where that fails."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return ()
    try:
        with open(file, "ab") as stream:
            room = _ROOM - stream.tell()
            stream.write(summary(outcomes, room).encode(errors="backslashreplace"))
    except OSError as error:
        return (f"the job summary cannot be written: {error.strerror or error}.",)
    return ()
