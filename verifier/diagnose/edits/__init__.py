"""Causes by the smallest edit: the candidate's own operators, changed and run on the baseline's inputs."""

from verifier.diagnose.edits.context import Meter
from verifier.diagnose.edits.search import JOINT, KINDS, RUNS, Found, Kind, Searched, searched

__all__ = ["JOINT", "KINDS", "RUNS", "Found", "Kind", "Meter", "Searched", "searched"]
