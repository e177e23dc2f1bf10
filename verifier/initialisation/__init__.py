"""Do two models start from the same values, or from the same distributions?"""

from verifier.initialisation.comparison import ERROR_RATE, verify_initialisation
from verifier.initialisation.records import Initialisation, Sample, Standing, TensorResult, Test

__all__ = [
    "ERROR_RATE",
    "Initialisation",
    "Sample",
    "Standing",
    "TensorResult",
    "Test",
    "verify_initialisation",
]
