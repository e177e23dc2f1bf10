"""Several models run at once and meet wherever they compute the same thing."""

from verifier.lockstep.lane import Lane
from verifier.lockstep.meeting import Meeting, meet
from verifier.lockstep.passes import Comparing, Passes, Plan, Queued, overwrite, queue, run
from verifier.lockstep.replay import Replay, unreplayable

__all__ = [
    "Comparing",
    "Lane",
    "Meeting",
    "Passes",
    "Plan",
    "Queued",
    "Replay",
    "meet",
    "overwrite",
    "queue",
    "run",
    "unreplayable",
]
