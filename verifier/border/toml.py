"""TOML files that people write: policies, parameter maps, recipes."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.errors import UsageError


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
