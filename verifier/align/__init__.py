"""Pairing the sites of two graphs, and the parameters they use, by structure alone."""

from verifier.align.alignment import Alignment, Pair, State, Unmatched
from verifier.align.matching import align

__all__ = ["Alignment", "Pair", "State", "Unmatched", "align"]
