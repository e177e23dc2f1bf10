"""Signs of life of the processes of one run: none waits for one that has died, was stopped or comes no further."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from verifier.border import heartbeat
from verifier.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable

_BEAT = 1.0  # seconds between two signs of life
_SILENT = 60.0  # seconds after which a process that gave none is taken for dead
_REASON = "verifier/reason/"
_ALIVE = "verifier/alive/"
_HERE = "verifier/here/"


class Pulse:
    """What one rank tells of itself in the store that all reach, and reads there of the others."""

    def __init__(self, store: Any, rank: int, size: int, patience: float, end: Callable[[str], None]) -> None:
        """Begin to give signs of life.

        Args:
            store: torch's, of the group.
            rank: This process.
            size: How many there are.
            patience: Seconds in which this process has to come further.
            end: Called with the reason where it does not, from another thread; it ends the process.
        """
        self._store, self._rank, self._size = store, rank, size
        self._patience, self._end = patience, end
        self._waiting = False
        self._met = 0
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="verifier-pulse", daemon=True).start()

    def stop(self) -> None:
        """Give no more signs of life: the run has ended."""
        self._over.set()

    def leave_reason(self, said: str) -> None:
        """Tell the others why this one ends, as far as they can still be reached."""
        with contextlib.suppress(Exception):
            self._store.set(f"{_REASON}{self._rank}", said)

    def reason(self) -> str | None:
        """Why another has ended, in its own words; None where none has said so."""
        for rank in self._others():
            if (said := self._read(f"{_REASON}{rank}")) is not None:
                return f"rank {rank} has ended: {said}"
        return None

    def beats(self) -> dict[int, str | None]:
        """The last sign of life of each other rank; nothing where the store cannot be reached."""
        with contextlib.suppress(Exception):
            return {rank: self._read(f"{_ALIVE}{rank}") for rank in self._others()}
        return {}

    def meet(self) -> None:
        """Wait until all ranks have come here, for the same number of times.

        Raises:
            ProcessError: One of them has ended, or gives no sign of life.
        """
        self._met += 1
        self._store.set(f"{_HERE}{self._met}/{self._rank}", "")
        self._waiting = True
        try:
            self._wait(self._met)
        finally:
            self._waiting = False

    def _wait(self, number: int) -> None:
        missing = set(self._others())
        heard: dict[int, tuple[str | None, float]] = {}
        pause = 0.001
        while True:
            missing = {rank for rank in missing if not self._store.check([f"{_HERE}{number}/{rank}"])}
            if not missing:
                return
            if (said := self.reason()) is not None:
                raise ProcessError(said)
            now = time.monotonic()
            for rank in missing:
                beat = self._read(f"{_ALIVE}{rank}")
                if rank not in heard or heard[rank][0] != beat:
                    heard[rank] = beat, now
                elif now - heard[rank][1] > _SILENT:
                    raise ProcessError(
                        f"rank {rank} has given no sign of life for {_SILENT:g} s: it has died, or was stopped."
                    )
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)

    def _others(self) -> list[int]:
        return [rank for rank in range(self._size) if rank != self._rank]

    def _read(self, key: str) -> str | None:
        return self._store.get(key).decode() if self._store.check([key]) else None

    def _beat(self) -> None:
        beats, steps, since = 0, -1, time.monotonic()
        while not self._over.wait(_BEAT):
            beats += 1
            with contextlib.suppress(Exception):  # whoever holds the store may have ended
                self._store.set(f"{_ALIVE}{self._rank}", str(beats))
            if self._waiting or heartbeat.steps() != steps:
                steps, since = heartbeat.steps(), time.monotonic()
            elif time.monotonic() - since > self._patience:
                at = heartbeat.latest()
                said = f"it has come no further for {self._patience:g} s (--patience){f', at: {at}' if at else ''}."
                self.leave_reason(said)
                self._end(f"rank {self._rank} ends: {said}")


def end_process(said: str) -> None:
    """End this process, whatever its main thread is doing, with a message and the exit code of what could not run."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"verifier: {said}\n")
        sys.stderr.flush()
    heartbeat.ended(ProcessError.exit_code)
    os._exit(ProcessError.exit_code)
