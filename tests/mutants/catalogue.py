"""All kinds of faults; importing this registers them."""

from tests.mutants import hyperparameters, structure, values  # noqa: F401 - they register themselves
from tests.mutants.planting import FAULTS

__all__ = ["FAULTS"]
