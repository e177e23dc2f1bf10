"""Every run in one SQLite file: what is kept of a result, and how it gets there whole.

A run is one transaction. Writers wait for one another, readers for nobody (write-ahead log); a process that is killed
leaves the whole of a run or nothing of it. Nothing here may change how a run ends: what goes wrong is a sentence.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.border import git
from verifier.border.error_texts import first_line
from verifier.errors import OutputError, UsageError
from verifier.gate.naming import described, named, tops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from verifier.records import CellResult, Comparison, PairResult, Result

VARIABLE = "VERIFIER_HISTORY"
"""The environment variable that says where the history is; `off` for none."""

NAME = "history.sqlite"
_PATIENCE = 30.0  # seconds to wait for other writers, each of which takes milliseconds
_APPLICATION = 0x50415249  # "PARI", by which the file is known for a history

# A step for each version of the schema. What was released is never changed: a further step is added.
# Texts that recur in every run are kept once. A figure that is NaN is kept as the text "nan": SQLite takes NaN for
# NULL, which here says that it was not measured.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL,
            git_commit TEXT, dirty INTEGER, branch TEXT,
            baseline TEXT NOT NULL, candidate TEXT NOT NULL, weights TEXT NOT NULL, inputs TEXT NOT NULL,
            seed INTEGER, policy TEXT NOT NULL, inputs_digest TEXT NOT NULL, weights_digest TEXT NOT NULL,
            torch TEXT NOT NULL, processor TEXT NOT NULL, devices TEXT NOT NULL, command TEXT NOT NULL,
            verdict TEXT NOT NULL, reason TEXT NOT NULL, first TEXT, cause TEXT, code TEXT, seconds REAL NOT NULL
        )""",
        """CREATE TABLE cells (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            name TEXT NOT NULL, role TEXT NOT NULL, verdict TEXT NOT NULL
        )""",
        "CREATE INDEX cells_of_run ON cells (run)",
        """CREATE TABLE sites (
            cell INTEGER NOT NULL REFERENCES cells (id) ON DELETE CASCADE, position INTEGER NOT NULL,
            baseline INTEGER REFERENCES texts (id), candidate INTEGER REFERENCES texts (id),
            op INTEGER NOT NULL REFERENCES texts (id), status INTEGER NOT NULL REFERENCES texts (id),
            total REAL, intrinsic REAL, total_mse REAL, intrinsic_mse REAL,
            allowed_total REAL, allowed_intrinsic REAL,
            PRIMARY KEY (cell, position)
        ) WITHOUT ROWID""",
    ),
)

RUN_COLUMNS = (
    "created", "git_commit", "dirty", "branch", "baseline", "candidate", "weights", "inputs", "seed", "policy",
    "inputs_digest", "weights_digest", "torch", "processor", "devices", "command", "verdict", "reason", "first",
    "cause", "code", "seconds",
)  # fmt: skip
SITE_COLUMNS = (
    "cell", "position", "baseline", "candidate", "op", "status", "total", "intrinsic", "total_mse", "intrinsic_mse",
    "allowed_total", "allowed_intrinsic",
)  # fmt: skip


def place(named: Path | None = None, *, never: bool = False) -> Path | None:
    """The file of the history: the one named, or the environment's, or the one of the repository worked in.

    The repository's lies beside its objects, `.git/verifier/history.sqlite`: one for all its worktrees, in nobody's
    way and in no commit. None outside a repository, and where none is wanted.
    """
    if never:
        return None
    if named is not None:
        return named
    wanted = os.environ.get(VARIABLE)
    if wanted is not None:
        return None if wanted.strip().lower() in ("", "off") else Path(wanted)
    common = git.ask("rev-parse", "--git-common-dir")
    return Path(common).resolve() / "verifier" / NAME if common else None


def required(named: Path | None = None) -> Path:
    """The file of the history, where one is to be read.

    Raises:
        UsageError: None is named, and none is kept here.
    """
    found = place(named)
    if found is None:
        raise UsageError(
            f"no history is kept here: this is no git repository, or {VARIABLE} says so. Name one with "
            "--history FILE."
        )
    return found


def keep(result: Result, file: Path | None) -> tuple[str, ...]:
    """Append a result to a history, if there is one to be kept.

    Returns:
        A sentence where that failed.
    """
    if file is None:
        return ()
    try:
        append(result, file)
    except OutputError as error:
        return (f"this run is not in the history: {error}. --no-history keeps none",)
    except Exception as error:  # whatever it is, the result is saved and its verdict stands
        return (f"this run is not in the history {file}: {first_line(error)}.",)
    return ()


def append(result: Result, file: Path) -> int:
    """Append a result, whole or not at all.

    Returns:
        Its number.

    Raises:
        OutputError: The history cannot be written, is none, or a newer version of this package wrote it.
    """
    branch, places = _branch(), tops()
    with _own_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with opened(file) as connection, _transaction(connection):
            return _insert(connection, result, branch, places)


@contextlib.contextmanager
def opened(file: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> Iterator[sqlite3.Connection]:
    """A connection to a history, which is made or brought up to date.

    Raises:
        OutputError: The file is none, or a newer version of this package wrote it.
        sqlite3.Error: It cannot be opened, read or written.
    """
    with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None)) as connection:
        known = _version(connection, file, len(migrations))
        if known < len(migrations):
            _write_ahead(connection)
            with _transaction(connection):
                # Another process may have been faster.
                for number in range(_version(connection, file, len(migrations)), len(migrations)):
                    for statement in migrations[number]:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number + 1}")
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def _version(connection: sqlite3.Connection, file: Path, newest: int) -> int:
    """The version of the schema, all read at one moment; 0 of an empty file."""
    application, version, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application != _APPLICATION and (application or version or tables):
        raise OutputError(f"{file} is a database of another program")
    if version > newest:
        raise OutputError(
            f"{file} was written by a newer version of this package (schema {version}, this one knows up to "
            f"{newest}); upgrade to use it"
        )
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log from now on. Where several begin at once SQLite does not wait for the others."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


@contextlib.contextmanager
def _own_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise OutputError(f"{file} cannot be written: {error}") from error


def _insert(connection: sqlite3.Connection, result: Result, branch: str | None, places: Sequence[str]) -> int:
    environment, cause = result.environment, next((c.cause for c in result.culprits if c.cause), None)
    # Where causes were not tried, what differs as written at the first culprit is all that is known.
    written = next(("; ".join(c.differences) for c in result.culprits[:1] if c.differences), None)
    first = result.first_divergence
    values = (
        result.created, environment.commit or None, environment.dirty, branch if environment.commit else None,
        named(result.baseline_name, places), named(result.candidate.spec, places), result.weights.mode,
        described(result.inputs.description, places), result.seed, result.policy, result.inputs.digest,
        result.weights.baseline_digest,
        environment.packages.get("torch", ""), environment.processor, ", ".join(environment.devices),
        result.command, str(result.verdict), result.reason, (first.baseline or first.candidate) if first else None,
        cause.summary if cause else written, cause.code if cause else None, result.seconds,
    )  # fmt: skip
    number = _add(connection, "runs", RUN_COLUMNS, values)
    ids = _texts(
        connection, {_plain(text) for cell in result.cells for row in cell.layers for text in _words(row)}
    )
    for cell in result.cells:
        key = _add(
            connection,
            "cells",
            ("run", "name", "role", "verdict"),
            (number, cell.name, cell.role, str(cell.verdict)),
        )
        connection.executemany(_statement("sites", SITE_COLUMNS), _rows(key, cell, ids))
    return number


def _rows(key: int, cell: CellResult, ids: dict[str | None, int | None]) -> Iterator[tuple[Any, ...]]:
    for position, row in enumerate(cell.layers):
        budget = row.budget
        yield (
            key, position, *(ids[_plain(text)] for text in _words(row)),
            *_figures("nrmse", row), *_figures("mse", row),
            _figure(budget.total if budget else None), _figure(budget.intrinsic if budget else None),
        )  # fmt: skip


def _words(row: PairResult) -> tuple[str | None, ...]:
    return row.baseline, row.candidate, row.op, str(row.status)


def _figures(name: str, row: PairResult) -> tuple[Any, Any]:
    def of(comparison: Comparison | None) -> Any:
        return _figure(None if comparison is None else getattr(comparison, name))

    return of(row.total), of(row.intrinsic)


def _figure(value: float | None) -> float | str | None:
    return "nan" if value is not None and math.isnan(value) else value


def _add(connection: sqlite3.Connection, table: str, columns: Sequence[str], values: Iterable[Any]) -> int:
    done = connection.execute(_statement(table, columns), tuple(map(_plain, values)))
    assert done.lastrowid is not None  # noqa: S101 - a row was inserted
    return done.lastrowid


def _statement(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of this module


def _texts(connection: sqlite3.Connection, texts: set[str | None]) -> dict[str | None, int | None]:
    """The keys of texts, which are added where they are not there yet."""
    wanted = [(text,) for text in sorted(text for text in texts if text is not None)]
    connection.executemany("INSERT OR IGNORE INTO texts (text) VALUES (?)", wanted)
    found = (
        connection.execute("SELECT text, id FROM texts WHERE text = ?", each).fetchone() for each in wanted
    )
    return {None: None, **dict(found)}


def _plain(value: Any) -> Any:
    """What cannot be encoded (a command line that was no UTF-8) is spelt out rather than lost."""
    return value.encode("utf-8", errors="backslashreplace").decode() if isinstance(value, str) else value


# Where a CI system checks out a commit and no branch, it says which branch that is of. In this order: of a pull
# request, GitHub's own name for it would be that of a merge.
_BRANCHES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME")


def _branch() -> str | None:
    said = (os.environ.get(name) for name in _BRANCHES)
    return git.ask("symbolic-ref", "--quiet", "--short", "HEAD") or next(filter(None, said), None)
