"""Why the culprits are wrong: differences as written, tried one by one on the site's own inputs."""

from verifier.diagnose.diagnosis import diagnose, diagnose_inputs
from verifier.diagnose.exhibits import exhibits
from verifier.diagnose.findings import with_findings, with_unreached
from verifier.diagnose.static import flag_differences, static_differences, written_otherwise
from verifier.diagnose.trials import Tried
from verifier.diagnose.unreached import unreached

__all__ = [
    "Tried",
    "diagnose",
    "diagnose_inputs",
    "exhibits",
    "flag_differences",
    "static_differences",
    "unreached",
    "with_findings",
    "with_unreached",
    "written_otherwise",
]
