"""What a history tells: runs in order, what changed between them, sites over runs, a frame of all figures."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.errors import OutputError, UsageError
from verifier.gate.changes import Follower, Key, ranked
from verifier.gate.history import RUN_COLUMNS, opened, required
from verifier.gate.lineage import ancestry, ordered, predecessors
from verifier.records import History, Point, RecordedRun, SiteLine, Timeline, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from verifier.records import Change

_MOST = 6  # sites shown of a timeline where nobody names any


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which runs and sites are asked for.

    `model`, `branch` and `cell` choose what is compared with what, all others what is listed of it. `model` is a
    wildcard pattern or a part of either specification; `since` a date, a time or an age such as `7d`; `site` a
    wildcard pattern, a site's name or a module's.
    """

    model: str | None = None
    branch: str | None = None
    cell: str | None = None
    site: str | None = None
    verdict: str | None = None
    since: str | None = None
    last: int | None = None


def recall(file: Path, selection: Selection) -> History:
    """What a history holds of the runs asked for.

    Raises:
        OutputError: There is none, or it cannot be read.
        UsageError: The selection is not understood.
    """
    listed = _listing(selection)
    with _reading(file) as connection:
        found = [run for run in _runs(connection) if _chosen(run, selection)]
        known = ancestry(found)
        runs = ordered(found, known)
        grouped: dict[tuple[object, ...], list[RecordedRun]] = {}
        for run in runs:
            grouped.setdefault(run.ground, []).append(run)
        timelines = tuple(
            _timeline(connection, group, predecessors(group, known), selection) for group in grouped.values()
        )
    wanted = [run.number for run in runs if listed(run)]
    shown = wanted[-selection.last :] if selection.last else wanted
    return History(
        file=str(file),
        by_commit=len(known) > 1,
        unknown=sum(run.commit not in known for run in runs),
        timelines=timelines,
        listed=tuple(shown),
    )


def frame(file: Path | str | None = None, selection: Selection | None = None) -> pd.DataFrame:
    """All figures of the runs listed and the sites asked for, one row a run, cell and site.

    Figures are float64 (NaN where not measured, too), counts nullable integers, all else text.

    Args:
        file: The history; by default the one that runs here are recorded in.
        selection: By default everything.

    Raises:
        OutputError: There is none, or it cannot be read.
        UsageError: The selection is not understood, or no history is kept here.
    """
    import pandas as pd  # noqa: PLC0415 - takes a second to import

    selection = selection or Selection()
    listed = _listing(selection)
    rows = []
    with _reading(required(None if file is None else Path(file))) as connection:
        chosen = [run for run in _runs(connection) if _chosen(run, selection)]
        runs = [run for run in ordered(chosen, ancestry(chosen)) if listed(run)]
        for run in runs[-selection.last :] if selection.last else runs:
            about = {name: getattr(run, name) for name in _ABOUT_RUN}
            rows += [
                {
                    **about,
                    "cell": cell,
                    **names,
                    **{name: getattr(point, name) for name in Point.__struct_fields__},
                }
                for cell, names, point in _sites(connection, run)
                if _cell_chosen(cell, selection) and _site_chosen(names, selection)
            ]
    found = pd.DataFrame(rows, columns=[*_ABOUT_RUN, "cell", *_NAMES, *Point.__struct_fields__])
    figures = dict.fromkeys(
        [*(name for name in Point.__struct_fields__ if name not in ("row", "status")), "seconds"], "float64"
    )
    return found.astype({**figures, "number": "Int64", "row": "Int64", "seed": "Int64", "dirty": "boolean"})


_ABOUT_RUN = tuple(name for name in RecordedRun.__struct_fields__ if name not in ("reason", "command"))
_NAMES = ("baseline_site", "candidate_site", "op")


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise OutputError(
            f"there is no history at {file}. Runs inside a git repository begin one, others with --history FILE"
        )
    try:
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(opened(file))
                connection.execute("SELECT count(*) FROM runs").fetchone()
            except sqlite3.OperationalError:  # where nothing can be written, not even the log of a reader
                place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                for suffix in ("", "-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy(f"{file}{suffix}", place / f"{file.name}{suffix}")
                connection = stack.enter_context(opened(place / file.name))
            connection.execute("BEGIN")  # what is appended meanwhile is not seen
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise OutputError(f"{file} cannot be read: {error}") from error


_RUNS = f"SELECT id, {', '.join(RUN_COLUMNS)} FROM runs ORDER BY id"  # noqa: S608 - names of the schema
_FIELDS = tuple({"git_commit": "commit"}.get(name, name) for name in RUN_COLUMNS)
_TEXT = {"commit", "branch", "first", "cause", "code"}  # absent: empty


def _runs(connection: sqlite3.Connection) -> Iterator[RecordedRun]:
    for number, *values in connection.execute(_RUNS):
        known: dict[str, Any] = dict(zip(_FIELDS, values, strict=True))
        known |= {name: known[name] or "" for name in _TEXT}
        known["dirty"] = None if known["dirty"] is None else bool(known["dirty"])
        yield RecordedRun(number=number, **{**known, "verdict": Verdict(known["verdict"])})


_SITES = """
SELECT cells.name, b.text, c.text, op.text, position, status.text, total, intrinsic, total_mse, intrinsic_mse,
    allowed_total, allowed_intrinsic
FROM cells JOIN sites ON sites.cell = cells.id
LEFT JOIN texts b ON b.id = sites.baseline LEFT JOIN texts c ON c.id = sites.candidate
JOIN texts op ON op.id = sites.op JOIN texts status ON status.id = sites.status
WHERE cells.run = ? ORDER BY cells.id, position
"""


def _sites(
    connection: sqlite3.Connection, run: RecordedRun
) -> Iterator[tuple[str, dict[str, str | None], Point]]:
    """Cell, names and figures of each row of a run."""
    for cell, baseline, candidate, op, row, status, *figures in connection.execute(_SITES, (run.number,)):
        names = dict(zip(_NAMES, (baseline, candidate, op), strict=True))
        values = [float(each) if isinstance(each, str) else each for each in figures]  # "nan"
        fields = dict(zip(Point.__struct_fields__[2:], values, strict=True))
        yield cell, names, Point(row=row, status=status, **fields)


def _timeline(
    connection: sqlite3.Connection,
    runs: Sequence[RecordedRun],
    befores: Mapping[int, RecordedRun],
    selection: Selection,
) -> Timeline:
    follower = Follower(befores)
    changes: list[Change] = []
    points: dict[Key, list[tuple[int, Point]]] = {}
    operators: dict[Key, str] = {}
    named: set[Key] = set()
    for run in runs:
        sites = []
        met: Counter[Key] = Counter()
        for cell, names, point in _sites(connection, run):
            if _cell_chosen(cell, selection):
                key = (cell, names["baseline_site"] or names["candidate_site"] or "unnamed")
                met[key] += 1
                if met[key] > 1:  # rows that are no sites may share a name
                    key = (cell, f"{key[1]} ({met[key]})")
                operators[key] = str(names["op"])
                sites.append((key, operators[key], point))
                points.setdefault(key, []).append((run.number, point))
                if selection.site is not None and _site_chosen(names, selection):
                    named.add(key)
        changes += ranked(follower.changes(run, sites))
    keys: list[Key] = [key for key in points if key in named]
    if selection.site is None:
        told = [change for change in changes if not change.inherited]
        told = [change for change in told if not change.rounding] or told
        keys = list(dict.fromkeys((change.cell, change.site) for change in told))[:_MOST]
    return Timeline(
        runs=tuple(runs),
        changes=tuple(changes),
        befores={number: before.number for number, before in befores.items()},
        verdicts=tuple(
            run.number
            for run in runs
            if run.number in befores and run.verdict is not befores[run.number].verdict
        ),
        lines=tuple(
            SiteLine(cell=key[0], site=key[1], op=operators[key], points=tuple(points[key])) for key in keys
        ),
    )


def _chosen(run: RecordedRun, selection: Selection) -> bool:
    return (selection.branch is None or fnmatch.fnmatchcase(run.branch, selection.branch)) and (
        selection.model is None
        or any(
            selection.model in spec or fnmatch.fnmatchcase(spec, selection.model)
            for spec in (run.baseline, run.candidate)
        )
    )


def _cell_chosen(cell: str, selection: Selection) -> bool:
    return selection.cell is None or fnmatch.fnmatchcase(cell, selection.cell)


def _site_chosen(names: Mapping[str, str | None], selection: Selection) -> bool:
    pattern = selection.site
    if pattern is None:
        return True
    found = filter(None, (names["baseline_site"], names["candidate_site"]))
    return any(
        name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)
        for name in found
    )


def _listing(selection: Selection) -> Any:
    """Whether a run is listed, as a function.

    Raises:
        UsageError: A verdict or a time is none.
    """
    verdicts = [str(each) for each in Verdict if each is not Verdict.SKIPPED]
    if selection.verdict is not None and selection.verdict not in verdicts:
        raise UsageError(f"--verdict {selection.verdict}: there are {', '.join(verdicts)}.")
    since = None if selection.since is None else _moment(selection.since)

    def listed(run: RecordedRun) -> bool:
        return (selection.verdict is None or run.verdict == selection.verdict) and (
            since is None or datetime.fromisoformat(run.created) >= since
        )

    return listed


def _moment(text: str) -> datetime:
    age = re.fullmatch(r"(\d+)\s*([mhdw])", text)
    try:
        if age:
            unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[age[2]]
            return datetime.now(UTC) - timedelta(**{unit: int(age[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--since {text}: give a date such as 2020-01-31, or an age such as 12h, 7d or 2w."
        ) from error
    return moment if moment.tzinfo else moment.astimezone()
