"""Questions that the first of several processes asks all of them, itself too, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from verifier.border import heartbeat
from verifier.border.error_texts import first_line
from verifier.errors import ModelError, ProcessError, VerifierError
from verifier.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_END = "end"
_STAGE = "comparing parts with the whole"
_LONG = timedelta(hours=12)  # in which the first process may compute between two questions
# What gloo and NCCL say of a process that is no longer there.
_PARTED = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "remote process exited")
PATIENCE = timedelta(minutes=5)
"""How long a process waits for others in a collective of the candidate's."""


@dataclass
class Crew:
    """The processes that hold a candidate between them; `answers` are what each can be asked, by name."""

    answers: Mapping[str, Callable[..., Any]]
    group: Any = field(default_factory=lambda: dist.new_group(backend="gloo", timeout=_LONG))

    def ask(self, what: str, *given: Any) -> list[Any]:
        """What every process answers, in the order of ranks. Only the first one asks.

        Raises:
            ProcessError: A process has failed.
        """
        try:
            dist.broadcast_object_list([(what, given)], src=0, group=self.group)
            own = self._answer(what, given)
            found: list[Any] = [None] * ranks().size
            dist.gather_object(own, found, dst=0, group=self.group)
        except VerifierError:
            raise
        except RuntimeError as error:
            raise ProcessError(ranks().why(error)) from error
        return found

    def serve(self) -> Any:
        """Answer until the first process has no more questions; what it says last.

        Raises:
            ProcessError: A process has failed.
        """
        while True:
            try:
                asked: list[Any] = [None]
                dist.broadcast_object_list(asked, src=0, group=self.group)
                what, given = asked[0]
                if what == _END:
                    return given[0]
                dist.gather_object(self._answer(what, given), None, dst=0, group=self.group)
            except VerifierError:
                raise
            except RuntimeError as error:
                raise ProcessError(ranks().why(error)) from error

    def end(self, said: Any) -> None:
        """Let the others go, with what the first has come to."""
        dist.broadcast_object_list([(_END, (said,))], src=0, group=self.group)

    def _answer(self, what: str, given: tuple[Any, ...]) -> Any:
        heartbeat.stage(_STAGE)  # a process that answers comes further
        return self.answers[what](*given)


def impatient() -> None:
    """Let no collective of the candidate's wait longer than `PATIENCE`; called before `Crew` has its own group."""
    known = dist.distributed_c10d
    set_timeout = getattr(dist, "set_timeout", None) or known._set_pg_timeout
    for group in list(known._world.pg_map):
        set_timeout(PATIENCE, group)


def waiting(error: BaseException, where: str, *, wide: bool) -> VerifierError:
    """What to say of a candidate that failed on this process while it ran, in float64 if `wide`."""
    said = first_line(error)
    at = f" at {where}" if where else ""
    if any(each in said for each in _PARTED):
        return ProcessError(ranks().why(error))
    if "imed out" in said or "timeout" in said.lower():
        return ModelError(
            f"rank {ranks().rank} has waited {PATIENCE.total_seconds():g} seconds{at} for the other ranks in a "
            "collective call: they do not all make the same calls in the same order."
        )
    what = "; it ran in float64, which --no-semantics leaves out" if wide else ""
    return ModelError(f"the candidate fails on rank {ranks().rank}{at}: {said.rstrip('.')}{what}.")
