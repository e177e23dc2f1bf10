"""Errors a user can act on, each with the exit code the command line ends with."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class VerifierError(Exception):
    """Base of every error this package raises on purpose; `str()` is one or two sentences for the user.

    `of_program` says that a program that was given, a model say, raised what led to it (see `verifier.border`).
    """

    exit_code = 3
    of_program = False
    elsewhere = False
    """Whether other processes of the same run tell it."""


class UsageError(VerifierError):
    """What was asked for is wrong: an unknown name, a bad file, an option that does not fit (exit 2)."""

    exit_code = 2


class SourceError(UsageError):
    """A model specification does not lead to a model."""


class InputError(UsageError):
    """Images or tensors given as input cannot be used."""


class DataError(UsageError):
    """A data set that is streamed cannot be read, or is not the same in every pass."""


class WeightsError(UsageError):
    """A weights file cannot be used for this model."""


class MapError(UsageError):
    """A parameter map cannot be read, or does not fit the two models."""


class OutputError(UsageError):
    """The result cannot be written where it was asked for, or a saved result cannot be read."""


class CertificateError(UsageError):
    """A certificate cannot be read, or does not fit what it is to be compared with."""


class DumpError(UsageError):
    """Dumped tensors cannot be read, or cannot stand in the baseline's place for what was asked."""


class CannotRunError(VerifierError):
    """The request is sound but this machine cannot carry it out (exit 3)."""


class ProcessError(VerifierError):
    """Of several processes of one run one has died, is stuck or went apart: no part of it can go on (exit 3)."""


class DeviceError(CannotRunError):
    """The device does not exist here or has no memory left."""


class OutOfMemoryError(DeviceError):
    """The device has no memory left for what was asked of it."""


class DownloadError(CannotRunError):
    """Weights that had to be downloaded could not be."""


class ModelError(CannotRunError):
    """A model raised while it ran; the original error is `__cause__`."""


class GraphDepartureError(ModelError):
    """A live run did not do what the recorded run did, so sites cannot be told apart any more."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `; did you mean 'resnet50'?`, or nothing where none is near."""
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(spelt), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(spelt[each]) for each in near)}?" if near else ""


def installing(extra: str) -> str:
    """How to install what only some need, as the README installs this package: from its checkout."""
    return f'pip install ".[{extra}]" in the checkout of this package'
