"""What a question to several processes takes on this machine: asked a few times, of processes that hold nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from verifier.errors import CannotRunError
from verifier.ranks import joined, ranks
from verifier.sharded.asking import Crew

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMES = {"small": 60, "large": 4}
_SIZES = {"small": 1 << 7, "large": 1 << 20}  # numbers of float64
_PATIENCE = 120.0  # seconds in which the processes have started and answered
_CODE = "from verifier.sharded.wire import main; main()"


@dataclass(frozen=True)
class Wire:
    """Seconds of a question, whatever the answer, and bytes a second that all answers together come with."""

    seconds: float
    rate: float

    @classmethod
    def of(cls, count: int) -> Wire:
        """Between `count` processes: those that torchrun has started, else such as are started for it here.

        Raises:
            CannotRunError: They do not reach each other.
        """
        if not (dist.is_available() and dist.is_gloo_available()):
            raise CannotRunError("torch is built without gloo here, over which processes tell their tensors.")
        small, large = _between() if ranks().size == count else _started(count)
        told = 8 * count * (_SIZES["large"] - _SIZES["small"])
        return cls(small, told / max(large - small, 1e-6))


def main() -> None:
    """One of the processes that are started for it; the first one says what it has measured."""
    with joined() as team:
        found = _between()
        if team.leads:
            sys.stdout.write(f"{found[0]} {found[1]}\n")


def _between() -> tuple[float, float]:
    """Seconds of a question with a small and with a large answer, between the processes of this group."""
    made: dict[str, Callable[..., Any]] = {
        name: lambda size=size: torch.zeros(size, dtype=torch.float64) for name, size in _SIZES.items()
    }
    crew = Crew(made)
    if not ranks().leads:
        found: tuple[float, float] = crew.serve()
        return found
    seconds = []
    for name, times in _TIMES.items():
        crew.ask(name)  # the first one connects
        started = time.perf_counter()
        for _ in range(times):
            crew.ask(name)
        seconds.append((time.perf_counter() - started) / times)
    crew.end(tuple(seconds))
    return seconds[0], seconds[1]


def _started(count: int) -> tuple[float, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(  # noqa: S603 - this module, by the interpreter that runs it
            [sys.executable, "-c", _CODE],
            env={**os.environ, **there, "RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said, failed = started[0].communicate(timeout=_PATIENCE)
        for each in started[1:]:
            each.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        said, failed = "", f"they do not answer within {_PATIENCE:g} s"
    finally:
        for each in started:
            each.kill()
            each.wait()
    numbers = said.split()
    if len(numbers) != len(_SIZES):
        last = (failed.strip().splitlines() or ["they say nothing"])[-1]
        raise CannotRunError(f"{count} processes here do not reach each other: {last}")
    return float(numbers[0]), float(numbers[1])
