"""What answers a signal, told from what a program raises: Ctrl-C stays Ctrl-C, wherever it arrives.

The two are told apart by where they came from: an exception that a handler raised while this package was at work is
marked.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = "_answers_a_signal"


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
def marking() -> Iterator[None]:
    """Mark what signal handlers raise inside; they are as before afterwards.

    Handlers belong to the main thread: in others nothing is done about them, and none runs there either.
    """
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
