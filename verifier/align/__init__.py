"""Pairing the sites of two graphs, and the parameters they use, by structure alone."""

from verifier.align.alignment import Alignment, Pair, State
from verifier.align.assembly import Assembly
from verifier.align.layouts import Layout, layouts
from verifier.align.matching import align

__all__ = ["Alignment", "Assembly", "Layout", "Pair", "State", "align", "layouts"]
