"""Ctrl-C that arrives: CPython raises it once, wherever the main thread is, and there it can be lost.

In a weak reference's callback it is printed and ignored; in the import system it can leave a lock held that another
thread waits for; a library's bare `except` swallows it, and one that it meets in C++ aborts. So it is raised again
until it has unwound everything; while this package or torch is imported, when there is nothing to unwind, it is not
raised.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from verifier.border import startup
from verifier.border.signals import mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_left: str | Callable[[], str] = "nothing was written."
_told = False
_answered = False
_leave: Callable[[], NoReturn]


def leaves(what: str | Callable[[], str]) -> None:
    """Say what an interruption leaves behind from now on: the end of a sentence, or what makes it then."""
    global _left  # noqa: PLW0603 - there is one process, and one end of it
    _left = what


def left() -> str:
    """What an interruption leaves behind."""
    return _left if isinstance(_left, str) else _left()


def tell_nothing() -> None:
    """Somebody else has told the user of the interruption."""
    global _told  # noqa: PLW0603 - as above
    _told = True


def told() -> bool:
    """Whether the user has been told already."""
    return _told


def answered() -> bool:
    """Whether Ctrl-C has come. What fails after it, fails of it: a library may have swallowed it half imported."""
    return _answered


_SHORTLY = 0.02  # seconds
_LATER = 1.0  # seconds; unwinding may run code that swallows nothing and needs its time

_IMPORTING = "<frozen importlib._bootstrap>"
_IMPORTED = "verifier.storage.earlier"  # before this has been, no result was touched


def listen(leave: Callable[[], NoReturn]) -> None:
    """Answer SIGINT with KeyboardInterrupt from now on, again and again until the process ends.

    While the package itself or torch is imported the answer is `leave`. Where the process was told to ignore the
    signal, it stays ignored.
    """
    global _leave  # noqa: PLW0603 - as above
    _leave = leave
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, startup.end):
        signal.signal(signal.SIGINT, _answer)
        sys.unraisablehook = _quiet
        if hasattr(signal, "pthread_kill"):
            read, write = os.pipe()
            os.set_blocking(write, False)
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(read,), daemon=True).start()


@contextlib.contextmanager
def also_of(signum: int) -> Iterator[None]:
    """Answer another signal as Ctrl-C meanwhile, whatever the process was told to ignore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signum, _answer)
    try:
        yield
    finally:
        signal.signal(signum, before)


def _quiet(lost: sys.UnraisableHookArgs) -> None:
    """Say nothing of a Ctrl-C that met a destructor, where Python can only ignore it: it comes again."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)


def _watch(arriving: int) -> None:
    """Send a signal again that came just before the main thread fell asleep: CPython would answer it on waking."""
    while signum := os.read(arriving, 1):
        time.sleep(_SHORTLY)
        if signum[0] == signal.SIGINT and not _answered:
            _send(signal.SIGINT)


def _answer(signum: int, frame: FrameType | None) -> None:
    global _answered  # noqa: PLW0603 - as above
    _answered = True
    if _is_importing(frame):
        try:
            _leave()
        except Exception:  # what it uses may be half imported itself
            if _told:
                startup.leave()
            startup.end()
    importing = frame is not None and frame.f_code.co_filename == _IMPORTING
    again = threading.Timer(_SHORTLY if importing else _LATER, _send, (signum,))
    again.daemon = True
    again.start()
    unwinding = isinstance(sys.exc_info()[1], KeyboardInterrupt)  # some `except` or `finally` is at work
    if not (importing or unwinding):
        raise mark(KeyboardInterrupt())


def _is_importing(frame: FrameType | None) -> bool:
    """Whether there is nothing to unwind: the package is imported, or torch, before anything is written."""
    early = _IMPORTED not in sys.modules
    while frame is not None:
        code = frame.f_code
        if early and code.co_filename == _IMPORTING:
            return True
        if code.co_name == "<module>" and frame.f_globals.get("__name__") == "torch":
            return True
        frame = frame.f_back
    return False


def _send(signum: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread even where it sleeps or waits
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)
