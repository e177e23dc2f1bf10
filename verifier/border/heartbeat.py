"""Where a run is, told to a process that watches it from outside, and how it ended.

A process that dies of a signal says nothing any more. So what it is doing stands in memory it shares with whoever
started it (`verifier.cli.isolating`): its stage, the model that runs and the call it makes, the result of before that
was set aside, and at last the exit code. A code that does not stand there was not given by this package.
Where nobody watches, all of this costs a comparison with None. The stages that were told are counted in any case.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "VERIFIER_WATCHED_BY"
"""The environment variable that names the open file to share, and the process that reads it."""

_FIELD: Final = 512  # bytes of each
_STAGE, _ROLE, _SITE, _ASIDE, _CODE = range(0, 5 * _FIELD, _FIELD)
SIZE: Final = 5 * _FIELD

_page: mmap.mmap | None = None
_steps = 0
_latest = ""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What a watched process told of itself; texts are empty, and the code None, where it told nothing."""

    stage: str
    role: str
    site: str
    aside: str
    code: int | None

    @classmethod
    def read(cls, page: mmap.mmap) -> Whereabouts:
        """What stands in the memory shared with it."""
        stage, role, site, folder, code = (_text(page, start) for start in range(0, SIZE, _FIELD))
        return cls(stage, role, site, folder, int(code) if code.isdecimal() else None)

    def told(self) -> str:
        """The last that was reached, as a part of a sentence; empty if nothing was."""
        model = f"the {self.role}{f' at {self.site}' if self.site else ''}" if self.role else ""
        return ", ".join(filter(None, (self.stage, model)))


def begin() -> None:
    """Share with whoever watches, if the environment says that somebody does; it says so to nobody else."""
    global _page  # noqa: PLW0603 - there is one process, and one who watches it
    handle, _, watcher = os.environ.pop(VARIABLE, "").partition(" ")
    with contextlib.suppress(OSError, ValueError):  # nothing, or a left-over: nobody watches
        _page = mmap.mmap(int(handle), SIZE)
        os.close(int(handle))
        _die_with(int(watcher))


def _die_with(watcher: int) -> None:
    """End when the watcher does, even by a kill, where the system can do that (Linux)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only a watched process needs it

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != watcher:
            os.kill(os.getpid(), signal.SIGKILL)


def watched() -> bool:
    """Whether anybody watches."""
    return _page is not None


def steps() -> int:
    """How often a stage was told: it grows as long as the run comes on."""
    return _steps


def latest() -> str:
    """The stage that was told last."""
    return _latest


def stage(name: str) -> None:
    """The run has come to a stage, or further in it; no model runs yet."""
    global _steps, _latest
    _steps, _latest = _steps + 1, name
    if _page is not None:
        _write(_page, _STAGE, name)
        _write(_page, _ROLE, "")


def model(role: str) -> None:
    """The `baseline` or the `candidate` is running from now on, or being built."""
    if _page is not None:
        _write(_page, _ROLE, role)
        _write(_page, _SITE, "")


def site(name: str) -> None:
    """The model is about to make this call."""
    if _page is not None:
        _write(_page, _SITE, name)


def aside(folder: str) -> None:
    """An earlier result has been set aside in this folder; empty once it is back, or not wanted any more."""
    if _page is not None:
        _write(_page, _ASIDE, folder)


def ended(code: int) -> None:
    """The process is about to end with this exit code, by this package's own will."""
    if _page is not None:
        _write(_page, _CODE, str(code))


def _write(page: mmap.mmap, start: int, text: str) -> None:
    content = text.encode(errors="backslashreplace")[: _FIELD - 1]
    page[start : start + len(content) + 1] = content + b"\0"


def _text(page: mmap.mmap, start: int) -> str:
    return page[start : start + _FIELD].partition(b"\0")[0].decode(errors="replace")
