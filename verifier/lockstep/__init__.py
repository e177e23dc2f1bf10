"""Several models run at once and meet wherever they compute the same thing."""

from verifier.lockstep.lane import Lane
from verifier.lockstep.passes import Comparing, Meeting, Passes, Queued, meet, queue, run
from verifier.lockstep.replay import Replay, replayable

__all__ = [
    "Comparing",
    "Lane",
    "Meeting",
    "Passes",
    "Queued",
    "Replay",
    "meet",
    "queue",
    "replayable",
    "run",
]
