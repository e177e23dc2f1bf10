"""Several models run at once and meet wherever they compute the same thing."""

from verifier.lockstep.lane import Lane
from verifier.lockstep.meeting import Meeting, meet
from verifier.lockstep.memory import Gaps, give_back, pages_held, pages_returned
from verifier.lockstep.passes import Comparing, Enough, Passes, Plan, Queued, queue, run
from verifier.lockstep.replay import Replay, unreplayable
from verifier.lockstep.traveller import overwrite

__all__ = [
    "Comparing",
    "Enough",
    "Gaps",
    "Lane",
    "Meeting",
    "Passes",
    "Plan",
    "Queued",
    "Replay",
    "give_back",
    "meet",
    "overwrite",
    "pages_held",
    "pages_returned",
    "queue",
    "run",
    "unreplayable",
]
