"""Several processes that make one verification, as torchrun starts them: each takes some samples, all know all."""

from verifier.ranks.group import Ranks, joined, ranks, started_together
from verifier.ranks.sharing import share

__all__ = ["Ranks", "joined", "ranks", "share", "started_together"]
