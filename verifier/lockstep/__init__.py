"""Several models run at once and meet wherever they compute the same thing."""

from verifier.lockstep.lane import Lane
from verifier.lockstep.passes import Meeting, Passes, run

__all__ = ["Lane", "Meeting", "Passes", "run"]
