"""Which tensors both models compute with: drawn, loaded, taken over or left as they are."""

from verifier.weights.choosing import Masters, choose, loaded
from verifier.weights.copies import fingerprints
from verifier.weights.files import read_state
from verifier.weights.maps import as_toml, read_map, resolve

__all__ = [
    "Masters",
    "as_toml",
    "choose",
    "fingerprints",
    "loaded",
    "read_map",
    "read_state",
    "resolve",
]
