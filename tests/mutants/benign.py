"""All variants that leave the function what it is; importing this registers them."""

from tests.mutants.rewrites import applies
from tests.mutants.variants import BENIGN, Variant, variant

__all__ = ["BENIGN", "Variant", "applies", "variant"]
