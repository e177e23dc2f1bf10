"""How commands end: exit codes, and errors in one or two sentences instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import typer

from verifier.cli import INTERRUPTED
from verifier.errors import CannotRunError, VerifierError
from verifier.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_CODES = {Verdict.MATCH: 0, Verdict.DIVERGED: 1, Verdict.INCONCLUSIVE: 4}

# torch raises a plain RuntimeError where the CPU has no memory left.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@contextlib.contextmanager
def translated(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into a message on stderr and an exit code; with `debug` into a traceback too."""
    try:
        yield
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        raise typer.Exit(INTERRUPTED) from None  # what to say of it, `verifier.cli.app` knows
    except typer.Exit:
        raise
    except Exception as error:
        _end(*told(error), debug=debug)


def told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code it ends with."""
    if isinstance(error, VerifierError):
        return str(error), error.exit_code
    return _foreign(error), CannotRunError.exit_code


def _foreign(error: Exception) -> str:
    """What to say of an error that nobody translated before."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return "out of memory. Use a smaller --batch-size or --image-size."
    if isinstance(error, ImportError):
        return f"a package that is needed does not import ({first_line}). Install this one with its dependencies."
    return f"unexpected {type(error).__name__}: {first_line}. This is a defect of the verifier; --debug shows where."


def _end(message: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"verifier: {message}\n")
    raise typer.Exit(code)


def by(verdict: Verdict) -> NoReturn:
    """End with the verdict's exit code."""
    raise typer.Exit(EXIT_CODES[verdict])
