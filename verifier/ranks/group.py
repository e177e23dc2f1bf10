"""The processes of one run and what they tell each other."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from verifier.border.error_texts import first_line
from verifier.errors import ProcessError, VerifierError
from verifier.ranks.pulse import Pulse, end_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

PATIENCE = 1800.0
"""Seconds in which a rank has to come further, unless it waits for others."""

_SHORTLY = 3.0  # seconds in which a rank that fails has said why, and one that lives has given a sign of it


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of `size` processes that make one verification."""

    rank: int = 0
    size: int = 1
    pulse: Pulse | None = field(default=None, compare=False, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def gather(self, mine: T) -> list[T]:
        """What every rank has, in the order of the ranks; all call this together.

        Raises:
            ProcessError: A rank has died, was stopped or comes no further.
        """
        if self.size == 1:
            return [mine]
        import torch.distributed as dist  # noqa: PLC0415 - only several ranks need it

        found: list[Any] = [None] * self.size
        try:
            if self.pulse is not None:
                self.pulse.meet()
            dist.all_gather_object(found, mine)
        except RuntimeError as error:
            raise ProcessError(self.why(error)) from error
        return found

    def together(self, make: Callable[[], T], alike: Callable[[T], object] = lambda _: None) -> list[T]:
        """What `make` gives on every rank. What this package raises on one of them is raised on all.

        Args:
            make: What each rank does.
            alike: What is the same of all that they give, if they are at the same step.

        Raises:
            VerifierError: As one of the ranks did.
            ProcessError: A rank has died, or the ranks are not at the same step.
        """
        if self.size == 1:
            return [make()]
        try:
            mine: tuple[VerifierError | None, T | None] = None, make()
        except VerifierError as error:
            mine = error, None
        found = self.gather((None if mine[0] is None else (type(mine[0]), str(mine[0])), mine[1]))
        for rank, (failed, _) in enumerate(found):
            if failed is not None:
                if mine[0] is not None:
                    raise mine[0]
                told = failed[0](f"on rank {rank}, {failed[1]}")
                told.elsewhere = not self.leads
                raise told
        every = [cast("T", each) for _, each in found]
        steps = list(dict.fromkeys(map(alike, every)))
        if len(steps) > 1:
            raise ProcessError(
                f"the ranks have come to other results on the same samples and went apart: {steps[0]}; {steps[1]}. "
                "Give them machines of one kind, with as many threads each."
            )
        return every

    def why(self, error: BaseException) -> str:
        """Why a rank has died: its own words where it had the time, else what the connection says."""
        until = time.monotonic() + _SHORTLY
        beats = {} if self.pulse is None else self.pulse.beats()
        while self.pulse is not None and time.monotonic() < until:
            with contextlib.suppress(Exception):
                if (said := self.pulse.reason()) is not None:
                    return said
            time.sleep(0.1)
        now = {} if self.pulse is None else self.pulse.beats()
        silent = [rank for rank, beat in now.items() if beat == beats.get(rank)]
        if silent:
            return f"{named(silent)} has died without a word, as a kill or a lack of memory ends it."
        return f"another rank has died without a word, as a kill or a lack of memory ends it ({first_line(error)})."


def named(numbers: Sequence[int]) -> str:
    """Ranks for people: `rank 1`, `ranks 1, 3`."""
    return f"{'ranks' if numbers[1:] else 'rank'} {', '.join(map(str, numbers))}"


def _devices_for_all() -> bool:
    import torch  # noqa: PLC0415 - only several ranks need it
    import torch.distributed as dist  # noqa: PLC0415

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return dist.is_nccl_available() and torch.cuda.device_count() >= local


_now = Ranks()


def ranks() -> Ranks:
    """Which of how many processes this one is."""
    return _now


def started_together() -> bool:
    """Whether torchrun, or whatever sets its variables, has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextlib.contextmanager
def joined(patience: float = PATIENCE, *, spread: bool = False) -> Iterator[Ranks]:
    """Join the processes that were started together; alone where there are none.

    They tell each other numbers of this package over gloo, whatever device their models run on. On CUDA each takes
    the device of its local rank. One that comes no further within `patience` seconds ends, and all with it. A model
    that is `spread` over them talks over NCCL on CUDA, if each has a device.

    Raises:
        ProcessError: The others cannot be reached.
    """
    global _now  # noqa: PLW0603 - a process is one rank of one group
    if not started_together():
        yield _now
        return
    import torch  # noqa: PLC0415 - only several ranks need it
    import torch.distributed as dist  # noqa: PLC0415

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        backend = "cpu:gloo,cuda:nccl" if spread and _devices_for_all() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=max(patience, 60.0)))
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"the other ranks cannot be reached: {first_line(error)}") from error
    rank, size = dist.get_rank(), dist.get_world_size()
    pulse = Pulse(dist.distributed_c10d._get_default_store(), rank, size, patience, end_process)
    _now = Ranks(rank, size, pulse)
    try:
        yield _now
    except Exception as error:
        pulse.leave_reason(str(error) if isinstance(error, VerifierError) else first_line(error))
        raise
    finally:
        _now = Ranks()
        pulse.stop()
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
