"""The same command once more, in a process of its own that may die: of a signal, by `os._exit`, never.

The child shares a page of memory with this process (`verifier.border.heartbeat`), where it says what it is doing
and, at its very end, its exit code. A code that does not stand there is none of this package's, and no verdict.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from verifier.border import heartbeat
from verifier.border.heartbeat import Whereabouts
from verifier.cli import INTERRUPTED, exits, interruption, streams
from verifier.errors import CannotRunError
from verifier.storage.folder import Aside, tidy

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRACE = 5.0  # seconds for an interrupted child to put everything back

_OUT_OF_MEMORY = "killed (SIGKILL), probably because memory ran out"


def where_asked(timeout: float | None, *, isolate: bool) -> None:
    """Go on in a child where that was asked for (a timeout does so, too), and return in that child and elsewhere."""
    if (isolate or timeout is not None) and not heartbeat.watched():
        _run_again(timeout)


def _run_again(timeout: float | None) -> NoReturn:
    """Run this command in a child and end with its exit code, or with 3 and a sentence if it died.

    Args:
        timeout: Seconds the child may take; None for as long as it takes.

    Raises:
        CannotRunError: This system cannot share memory or end a whole group of processes.
        KeyboardInterrupt: Ctrl-C, once the child has gone.
    """
    if sys.platform == "win32":
        raise CannotRunError("--isolate and --timeout need process groups, which this system does not have.")
    with tempfile.TemporaryFile() as shared:
        shared.truncate(heartbeat.SIZE)
        page = mmap.mmap(shared.fileno(), heartbeat.SIZE)
        child = subprocess.Popen(  # noqa: S603 - this very command
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, heartbeat.VARIABLE: f"{shared.fileno()} {os.getpid()}"},
            stdin=subprocess.DEVNULL,
            pass_fds=(shared.fileno(),),
            start_new_session=True,  # a group that can be ended as a whole
        )
        try:
            with _ending(child):
                code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill(child)
            _report(page, f"had not ended after {timeout:g} s (--timeout) and was killed")
        except KeyboardInterrupt:
            _interrupt(child, page)
            raise
        _kill(child)  # what it started and left behind
    last = Whereabouts.read(page)
    if last.code is None:
        _report(page, _death(code))
    if last.code == INTERRUPTED:
        interruption.tell_nothing()  # the child has
    exits.end(last.code)


@contextlib.contextmanager
def _ending(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Take the child along where this process is told to end: it is in another group, and would run on."""

    def end(number: int, _frame: object) -> None:
        _signal(child, signal.SIGKILL)  # and no waiting: what this interrupts is waiting already
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    told = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in told}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(child: subprocess.Popen[bytes]) -> None:
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the child and all it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _interrupt(child: subprocess.Popen[bytes], page: mmap.mmap) -> None:
    """Let the child end as it would at a terminal; if it does not, end it and put an earlier result back for it."""
    _signal(child, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    _kill(child)
    last = Whereabouts.read(page)
    if last.code is not None:
        interruption.tell_nothing()
    elif last.aside:
        Aside.of(Path(last.aside)).put_back()


def _death(code: int) -> str:
    """How a child ended that did not say so itself."""
    if code >= 0:
        return f"ended with exit code {code} before there was a verdict; something it runs ends the process"
    number = -code
    if number == signal.SIGKILL:
        return f"was {_OUT_OF_MEMORY}"
    try:
        return f"was ended by {signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"was ended by signal {number}"


def _report(page: mmap.mmap, how: str) -> NoReturn:
    last = Whereabouts.read(page)
    if last.code is not None:  # it had come to its end, and said so
        exits.end(last.code)
    if streams.err().isatty():
        streams.err().write("\x1b[?25h\r\x1b[K")  # its progress bar had hidden the cursor
    where = last.told()
    sentences = [f"the process of the models {how}{f' (last reached: {where})' if where else ''}."]
    if last.aside:
        tidy(Path(last.aside).parent)
        if Path(last.aside).is_dir():
            sentences.append(f"An earlier result was set aside in {last.aside}.")
    raise CannotRunError(" ".join(sentences))
