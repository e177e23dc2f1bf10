"""Is this network still the same function as the trusted one, layer by layer?

from verifier import verify

result = verify(baseline, candidate, inputs)
result.verdict             # "match", "diverged" or "inconclusive"
result.first_divergence    # None, or the pair where the two part
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and "verifier" in sys.orig_argv:  # `python -m verifier`, before its own first line
    from verifier.border import startup

    startup.listen()

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.certificates.certificate import Certificate
    from verifier.certificates.recording import record
    from verifier.certificates.watching import recording
    from verifier.errors import (
        CannotRunError,
        CertificateError,
        DeviceError,
        DownloadError,
        GraphDepartureError,
        InputError,
        ModelError,
        OutputError,
        SourceError,
        UsageError,
        VerifierError,
        WeightsError,
    )
    from verifier.gate.parity import ParityError, assert_parity
    from verifier.judge import Policy
    from verifier.records import Status, Verdict
    from verifier.storage.saving import Verification, load
    from verifier.verification import verify

_HOMES = {
    "CannotRunError": "errors",
    "Certificate": "certificates.certificate",
    "CertificateError": "errors",
    "DeviceError": "errors",
    "DownloadError": "errors",
    "GraphDepartureError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "ParityError": "gate.parity",
    "Policy": "judge",
    "SourceError": "errors",
    "Status": "records",
    "UsageError": "errors",
    "Verdict": "records",
    "Verification": "storage.saving",
    "VerifierError": "errors",
    "WeightsError": "errors",
    "assert_parity": "gate.parity",
    "load": "storage.saving",
    "record": "certificates.recording",
    "recording": "certificates.watching",
    "verify": "verification",
}

__all__ = [
    "CannotRunError",
    "Certificate",
    "CertificateError",
    "DeviceError",
    "DownloadError",
    "GraphDepartureError",
    "InputError",
    "ModelError",
    "OutputError",
    "ParityError",
    "Policy",
    "SourceError",
    "Status",
    "UsageError",
    "Verdict",
    "Verification",
    "VerifierError",
    "WeightsError",
    "assert_parity",
    "load",
    "record",
    "recording",
    "verify",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; --help and the records must not wait for it.
    if name in _HOMES:
        return getattr(importlib.import_module(f"verifier.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'verifier' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
