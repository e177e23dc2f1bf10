"""Do two models start from the same values, or from the same distributions?"""

from verifier.initialisation.comparing import verify_initialisation
from verifier.initialisation.records import Initialisation, TensorStanding

__all__ = [
    "Initialisation",
    "TensorStanding",
    "verify_initialisation",
]
