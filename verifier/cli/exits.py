"""How commands end: exit codes, and errors in one or two sentences instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import typer

from verifier.accounts import account, first_line, raised_by_program
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
    told = first_line(error)
    if isinstance(error, MemoryError) or any(sign in told for sign in _OUT_OF_MEMORY):
        return "out of memory. Use a smaller --batch-size or --image-size."
    if isinstance(error, ImportError):
        why = told.partition(": ")[2]
        return f"a package that is needed does not import ({why}). Install this one with its dependencies."
    if raised_by_program(error):
        return f"code that is not the verifier's raised {account(error)}. --debug shows how it came there."
    return f"unexpected {told}. This is a defect of the verifier; --debug shows where."


def _end(message: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"verifier: {message}\n")
    raise typer.Exit(code)


def by(verdict: Verdict) -> NoReturn:
    """End with the verdict's exit code."""
    raise typer.Exit(EXIT_CODES[verdict])
