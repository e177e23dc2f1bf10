"""Several models run at once and meet wherever they compute the same thing."""

from verifier.lockstep.lane import Lane
from verifier.lockstep.passes import Comparing, Meeting, Passes, meet, run

__all__ = ["Comparing", "Lane", "Meeting", "Passes", "meet", "run"]
