"""Do two models start from the same values, or from the same distributions?"""

from verifier.initialisation.comparing import ERROR_RATE, verify_initialisation
from verifier.initialisation.records import Initialisation, Statistics, TensorResult, TensorStanding, Test

__all__ = [
    "ERROR_RATE",
    "Initialisation",
    "Statistics",
    "TensorResult",
    "TensorStanding",
    "Test",
    "verify_initialisation",
]
