"""Attempts to fool the verifier, by accident as much as on purpose: none may end in a match that is not told."""
