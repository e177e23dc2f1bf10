"""Checkpoints: everything an unfinished training needs to go on exactly where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from verifier.border import whole_files
from verifier.border.error_texts import first_said
from verifier.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION = 2


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    whole_files.write(file, lambda stream: torch.save({"version": _VERSION, **content}, stream))


def read(file: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of the same training. Nothing in the file is executed.

    Args:
        file: Where it is.
        request: What has to be the same for the training to go on exactly, by name; a value may be a dictionary.

    Raises:
        UsageError: It is damaged, or of another training; the message says in what they differ.
    """
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        version, then = content["version"], content["request"]
    except Exception as error:
        raise UsageError(
            f"the checkpoint {file} is damaged ({first_said(error)}). Delete it to train from the start."
        ) from error
    if version > _VERSION:
        raise UsageError(
            f"the checkpoint {file} was written by a newer version of this package; upgrade to go on."
        )
    if version < _VERSION:
        raise UsageError(
            f"the checkpoint {file} was written by an older version of this package, which did not keep all that an "
            "exact resume needs. Finish it with that version, or delete it to train from the start."
        )
    was, now = _settings(then), _settings(request)
    # What an older version did not know of is off where it is None.
    others = [name for name in {**now, **was} if was.get(name) != now.get(name)]
    if others:
        told = "; ".join(
            f"{name} was {_shown(was.get(name))}, now {_shown(now.get(name))}" for name in others[:3]
        )
        told += f"; and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(
            f"the checkpoint {file} is of another training: {told}. Ask for the same to go on, or give another --out."
        )
    return content


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every single setting by what it is called in a sentence."""
    found: dict[str, Any] = {}
    for name, value in request.items():
        if isinstance(value, dict):
            found |= {f"the {name}'s {key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
