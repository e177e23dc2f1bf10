"""Which tensors both models compute with: drawn, loaded, taken over or left as they are."""

from verifier.weights.choosing import MODES, Masters, choose, fingerprints, related
from verifier.weights.files import read_state

__all__ = ["MODES", "Masters", "choose", "fingerprints", "read_state", "related"]
