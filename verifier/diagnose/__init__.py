"""Why the culprits are wrong: differences as written, tried one by one on the site's own inputs."""

from verifier.diagnose.diagnosis import Examined, diagnose, diagnose_inputs
from verifier.diagnose.exhibits import exhibits
from verifier.diagnose.findings import with_findings
from verifier.diagnose.static import HARMLESS, flag_differences, static_differences

__all__ = [
    "HARMLESS",
    "Examined",
    "diagnose",
    "diagnose_inputs",
    "exhibits",
    "flag_differences",
    "static_differences",
    "with_findings",
]
