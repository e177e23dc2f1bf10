"""Candidates that end, close or fill what is not theirs: each is `nets.net` with one bad habit in its forward."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nets  # type: ignore[import-not-found]
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Ending(nn.Module):
    """The network, then what it does to the process."""

    def __init__(self, body: nn.Module, habit: Callable[[], object]) -> None:
        super().__init__()
        self.body = body
        self.habit = habit

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.habit()
        return y


def leaves() -> nn.Module:
    return Ending(nets.net(), sys.exit)


def leaves_at_once() -> nn.Module:
    sys.exit()


def exits() -> nn.Module:
    return Ending(nets.net(), lambda: os._exit(0))


def aborts() -> nn.Module:
    return Ending(nets.net(), os.abort)


def crashes() -> nn.Module:
    return Ending(nets.net(), lambda: ctypes.string_at(0))


def is_killed() -> nn.Module:
    return Ending(nets.net(), lambda: os.kill(os.getpid(), signal.SIGKILL))


def loops() -> nn.Module:
    def forever() -> None:
        Path("looping").touch()
        while True:
            time.sleep(0.01)

    return Ending(nets.net(), forever)


def hoards() -> nn.Module:
    def hoard() -> None:
        size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, resource.RLIM_INFINITY))
        hoarded = [bytearray(2**20)]
        while True:
            hoarded.append(bytearray(2**20))

    return Ending(nets.net(), hoard)


def floods() -> nn.Module:
    return Ending(nets.net(), lambda: print("x" * 2_000_000))


def closes() -> nn.Module:
    """The wrong epsilon, and everything that could hide it: closed streams, handlers at exit, threads that stay."""

    def close() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        for handle in (1, 2):
            try:
                os.close(handle)
            except OSError:
                return  # the second time
        atexit.register(lambda: os._exit(0))
        threading.Thread(target=time.sleep, args=(600,)).start()

    return Ending(nets.other_eps(), close)
