"""Scripts that show a culprit with torch alone: its calls, what they were given, and what should come out."""

from verifier.diagnose.repros.repros import Repro, Setting, repros

__all__ = ["Repro", "Setting", "repros"]
