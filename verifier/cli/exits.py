"""How commands end: exit codes, and errors in one or two sentences instead of a traceback."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, NoReturn

import typer

from verifier.border.error_texts import account, first_line, is_out_of_memory, raised_by_program, sentence
from verifier.border.signals import answer_in, is_closing
from verifier.cli import INTERRUPTED, interruption, streams
from verifier.errors import CannotRunError, VerifierError
from verifier.records import Verdict
from verifier.storage.earlier import note_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_CODES = {Verdict.MATCH: 0, Verdict.ACCEPTED: 0, Verdict.DIVERGED: 1, Verdict.INCONCLUSIVE: 4}


class _End(typer.Exit):
    """The end of the command with an exit code; raised here alone, so that nobody else's passes for one."""


_given = False


def given() -> bool:
    """Whether an exit code was given here, and not by the parser of the command line."""
    return _given


def end(code: int) -> NoReturn:
    """End the command with an exit code."""
    global _given  # noqa: PLW0603 - there is one process, and one end of it
    _given = True
    raise _End(code)


def by(verdict: Verdict) -> NoReturn:
    """End with the verdict's exit code."""
    end(EXIT_CODES[verdict])


@contextlib.contextmanager
def translated(*, debug: bool, failed: Callable[[str], None] | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into a message on stderr and an exit code; with `debug` into a traceback too.

    Whatever it is: nothing but `end` leaves a command with a code of its own choice. `failed` is told the message.
    """
    try:
        yield
    except _End:
        raise
    except BaseException as error:
        if is_closing(error):
            raise
        if debug:
            traceback.print_exc(file=streams.err())
        hidden = isinstance(answer_in(error), KeyboardInterrupt) and not isinstance(error, Exception)
        if hidden or interruption.answered():
            end(INTERRUPTED)  # what to say of it, `verifier.cli.app` knows
        _let_go(error)
        message, code = told(error)
        if not getattr(error, "elsewhere", False):
            streams.complain(message)
        if failed is not None:
            failed(message)
        end(code)


def _let_go(error: BaseException) -> None:
    """Free what the frames of an error hold: where memory has run out, there is none left to tell it with."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:  # an error may be its own context's context
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += [each.__cause__, each.__context__]


def told(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code it ends with."""
    message, code = (
        (str(error), error.exit_code)
        if isinstance(error, VerifierError)
        else (_foreign(error), CannotRunError.exit_code)
    )
    note = note_of(error)
    return (f"{sentence(message)} {note}" if note else message), code


def _foreign(error: BaseException) -> str:
    """What to say of an error that nobody translated before."""
    if not isinstance(error, Exception):
        return f"{account(error)} was raised by a program that was given, and would have ended the run."
    said = first_line(error)
    if is_out_of_memory(error):
        return "out of memory. Use a smaller --batch-size or --image-size."
    if isinstance(error, ImportError):
        what = said.partition(": ")[2]
        return f"a package that is needed does not import ({what}). Install this one with its dependencies."
    if raised_by_program(error):
        return f"code that is not the verifier's raised {account(error)}. --debug shows how it came there."
    return f"unexpected {said}. This is a defect of the verifier; --debug shows where."
