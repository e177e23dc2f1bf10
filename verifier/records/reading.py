"""Records as JSON from outside: read back exactly as they stand there, or refused with the name of the field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from verifier.records.base import Record, to_builtins

if TYPE_CHECKING:
    from collections.abc import Sequence

Kept = TypeVar("Kept", bound=Record)

_SHOWN = 60  # characters of a value that is refused


class DamagedError(ValueError):
    """A text is no record: which field, and what is wrong with it."""


class UnknownError(ValueError):
    """A text is JSON, but nothing in it says that it was meant to be a record."""


class NewerError(ValueError):
    """A record was written in a schema that is not known here."""

    def __init__(self, version: int, newest: int) -> None:
        super().__init__(f"schema {version}, this one reads up to {newest}")


def read(text: str, kind: type[Kept], newest: int) -> Kept:
    """The record of this kind that a JSON text holds. What its types allow may still be nonsense.

    Args:
        text: Strict JSON, in which NaN and infinities are the strings "nan", "inf" and "-inf".
        kind: What is read. Fields with a default may be missing: an older version did not write them.
        newest: The last schema version known.

    Raises:
        UnknownError: It has no schema version.
        DamagedError: It is no JSON, a field is missing, unknown, or of another type.
        NewerError: Its schema version is beyond the last that is known.
    """
    try:
        content = json.loads(text, object_pairs_hook=_table, parse_constant=_no_constant)
    except RecursionError as error:
        raise DamagedError("it is nested deeper than any record") from error
    except ValueError as error:
        raise DamagedError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict) or "schema_version" not in content:
        raise UnknownError("it has no schema_version")
    version = content["schema_version"]
    if type(version) is not int or version < 1:
        raise DamagedError(f"schema_version is {_shown(version)}, which nothing was ever written in")
    if version > newest:
        raise NewerError(version, newest)
    try:
        # Not strict, because "nan" and "inf" are numbers here; what else that lets through, the way back shows.
        found = msgspec.convert(content, kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise DamagedError(_with_field(str(error))) from error
    strange = _strange(content, to_builtins(found), "")
    if strange:
        raise DamagedError(strange)
    return found


def _table(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"the name {_shown(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in strict JSON")


def _strange(given: Any, read_back: Any, path: str) -> str:
    """The first field that was read as something else than stands there, and what stands there."""
    if isinstance(given, dict) and isinstance(read_back, dict):
        for name, value in given.items():
            where = f"{path}.{name}" if path else name
            if name not in read_back:
                return f"{where} is no field that is known here"
            found = _strange(value, read_back[name], where)
            if found:
                return found
        return ""
    if isinstance(given, list) and isinstance(read_back, list):
        for number, (one, other) in enumerate(zip(given, read_back, strict=True)):
            found = _strange(one, other, f"{path}[{number}]")
            if found:
                return found
        return ""
    alike = _kind(given) is _kind(read_back) and given == read_back
    return "" if alike else f"{path} is {_shown(given)}, where {_shown(read_back)} could be meant"


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _with_field(message: str) -> str:
    """msgspec's message, with the field first as everywhere."""
    what, at, where = message.rpartition(" - at `$")
    return (
        f"{where.rstrip('`').lstrip('.')}: {what[:1].lower()}{what[1:]}" if at and where != "`" else message
    )


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
