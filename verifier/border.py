"""The border to the programs this package is given: models, preprocessings, trainers, whatever a user wrote.

They may raise anything: `sys.exit()`, a KeyboardInterrupt of their own, GeneratorExit, some other BaseException. None
of it may end whoever called this package, or look like an end of its own: it becomes a `VerifierError`.
What a signal's handler raises is no program's: Ctrl-C stays KeyboardInterrupt, and passes. The two are told apart by
where they came from: an exception that a handler raised while this package was at work is marked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from verifier.errors import ModelError, VerifierError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Raised = TypeVar("Raised", bound=VerifierError)

_MARK = "_answers_a_signal"
_LONGEST = 300  # characters of a foreign message


class _Answer:
    """A signal's handler as it was, and a mark on what it raises."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.handler(*arguments)
        except BaseException as error:
            mark(error)
            raise


def mark(error: BaseException) -> BaseException:
    """Note on an exception that it answers a signal, and return it."""
    setattr(error, _MARK, True)
    return error


def answer_in(error: BaseException) -> BaseException | None:
    """The answer to a signal that `error` is, or whose place it took on the way up; None if it is a program's own."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        if getattr(each, _MARK, False):
            return each
        seen.add(id(each))
        todo += [each.__context__, each.__cause__]
    return None


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Mark what signal handlers raise inside. They, and the current directory, are as before afterwards.

    Handlers belong to the main thread: in others nothing is done about them, and none runs there either.
    """
    with _marking(), _staying():
        yield


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """Come back to the current directory: relative paths that were given are meant from there."""
    try:
        before = Path.cwd()
    except FileNotFoundError:  # it was removed
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)


@contextlib.contextmanager
def _marking() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number, handler in before.items():
            if not isinstance(handler, _Answer):
                signal.signal(number, _Answer(handler))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def translating(made: Callable[[BaseException], VerifierError]) -> Iterator[None]:
    """Whatever a program raises inside becomes what `made` makes of it, marked as a program's (`of_program`).

    What this package raised on purpose passes, and so do answers to signals.
    """
    try:
        yield
    except VerifierError:
        raise
    except BaseException as error:
        check_unanswered(error)
        raise by_program(made(error)) from error


def check_unanswered(error: BaseException) -> None:
    """Let an answer to a signal pass: raise it, should `error` be one or hide one that is no ordinary exception."""
    answer = answer_in(error)
    if answer is error or is_closing(error):
        raise error
    if answer is not None and not isinstance(answer, Exception):
        raise answer


def is_closing(error: BaseException) -> bool:
    """Whether a context manager is closed unused, as when Ctrl-C comes just as it is to be told of its end.

    What a program raises comes from a frame deeper than the manager's own.
    """
    trace = error.__traceback__
    return isinstance(error, GeneratorExit) and (trace is None or trace.tb_next is None)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """The outermost border, around all that a public function does; also a decorator.

    Raises:
        ModelError: A program raised what is no Exception, in a place where nothing more is known about it.
    """
    with undisturbed():
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            check_unanswered(error)
            raise by_program(
                ModelError(
                    f"a program that was given raised {account(error)}, which would have ended the whole run. "
                    "Let it return, or raise an ordinary error."
                )
            ) from error


def by_program(error: Raised) -> Raised:
    """Note on an error that a program raised what led to it, and return it."""
    error.of_program = True
    return error


def account(error: BaseException) -> str:
    """What went wrong and in which line of the user's program, in one line."""
    return f"{first_line(error)}{place(error)}"


def failure(error: BaseException) -> str:
    """What a program raised while it ran; with the line where it is no ordinary error, and tells little by itself."""
    return first_line(error) if isinstance(error, Exception) else account(error)


def first_line(error: BaseException) -> str:
    """An exception's class and the first line of what it says, even if asking for that fails."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException as failure:  # the message is a program, too
        check_unanswered(failure)
        lines = []
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def place(error: BaseException) -> str:
    """` (net.py, line 12)`: the innermost line that is neither an installed package's nor of this one."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        inside = f" ({Path(error.filename).name}, line {error.lineno})"
        return "" if f"{Path(error.filename).name}, line {error.lineno}" in str(error) else inside
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(frame.filename):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def is_users(filename: str) -> bool:
    """Whether a file is a user's: not of Python, of the installed packages or of this one."""
    if filename.startswith("<"):
        return False
    path = Path(filename)
    torch = sys.modules.get("torch")
    installed = [Path(torch.__file__).parent.parent] if torch is not None and torch.__file__ else []
    foreign = (Path(os.__file__).parent, *installed, Path(__file__).parent)
    return not any(path.is_relative_to(folder) for folder in foreign)
