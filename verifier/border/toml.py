"""TOML files that people write: policies, parameter maps, recipes."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from verifier.errors import UsageError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def read(path: Path, called: str, refusal: type[UsageError]) -> dict[str, Any]:
    """What a TOML file holds.

    Args:
        path: The file.
        called: What it is called in messages: `--policy FILE`.
        refusal: What is raised.

    Raises:
        UsageError: As `refusal`: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal(f"{called} cannot be read: {error.strerror or error}.") from error
    except RecursionError as error:
        raise refusal(f"{called} is nested too deep to be read.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise refusal(f"{called} is no TOML: {error}.") from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        raise refusal(f"{called} has a number of more digits than any number here needs.") from error


def check_keys(table: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """See that a table has no key but those that are known.

    Args:
        table: What was read.
        known: The keys it may have.
        what: What it is, for the message: `FILE: a policy`.

    Raises:
        UsageError: It has another; the message suggests the one that was meant.
    """
    keys = list(known)
    for key in table:
        if key not in keys:
            near = suggestion(key, keys) or f". The keys are {', '.join(keys)}."
            raise UsageError(f"{what} has no key {key!r}{near}")
