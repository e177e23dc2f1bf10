"""Several processes that make one verification, as torchrun starts them: each takes some samples, all know all."""

from verifier.ranks.group import PATIENCE, Ranks, joined, named, ranks, started_together
from verifier.ranks.sharing import share

__all__ = ["PATIENCE", "Ranks", "joined", "named", "ranks", "share", "started_together"]
