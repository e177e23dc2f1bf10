"""How commands end: exit codes, and errors in one or two sentences instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import typer

from verifier.errors import CannotRunError, VerifierError
from verifier.result import Verdict

EXIT_CODES = {Verdict.MATCH: 0, Verdict.DIVERGED: 1, Verdict.INCONCLUSIVE: 4}
INTERRUPTED = 130


@contextlib.contextmanager
def translated(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into a message on stderr and an exit code; with `debug` into a traceback too."""
    try:
        yield
    except VerifierError as error:
        _end(str(error), error.exit_code, debug=debug)
    except KeyboardInterrupt:
        _end("interrupted; nothing was written.", INTERRUPTED, debug=debug)
    except MemoryError:
        _end("out of memory. Use a smaller --batch-size or --image-size.", CannotRunError.exit_code, debug=debug)
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001 - the last border before the user
        lines = str(error).strip().splitlines()
        _end(
            f"unexpected {type(error).__name__}: {lines[0] if lines else ''}. This is a defect of the verifier; "
            "--debug shows where.",
            CannotRunError.exit_code,
            debug=debug,
        )


def _end(message: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"verifier: {message}\n")
    raise typer.Exit(code)


def by(verdict: Verdict) -> NoReturn:
    """End with the verdict's exit code."""
    raise typer.Exit(EXIT_CODES[verdict])
