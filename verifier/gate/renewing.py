"""Certificates of tests: recorded where there are none, and anew after a change that was meant."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from verifier.errors import CertificateError, UsageError
from verifier.records import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from verifier.certificates.certificate import Certificate
    from verifier.storage.saving import Verification

UPDATE = "--parity-update"
_WIDTH = 200  # characters of a line that says why


def command(test: str) -> str:
    """What records the certificates of a test anew."""
    return f"pytest {UPDATE} {shlex.quote(test)}" if test else f"pytest {UPDATE}"


def check_there(file: Path, test: str) -> None:
    """Refuse a certificate that is not there.

    Raises:
        CertificateError: There is no such file.
    """
    if not file.exists():
        raise CertificateError(
            f"{file} is not there. {command(test)} records the candidate of the test; a trusted model is recorded by "
            f"python -m verifier record SPEC --weights as-is --out {shlex.quote(str(file))}"
        )


def renewed(
    file: Path,
    candidate: nn.Module | str,
    inputs: Any,
    *,
    weights: str | None,
    options: Mapping[str, Any],
    tell: Callable[[str], None],
) -> Verification:
    """What the candidate is to its certificate, which is recorded of it first if it is not there or does not fit.

    A certificate that the candidate matches stays as it is. The file is exchanged at once, so that processes which
    record the same one leave a whole one: the last. What is recorded, and what changed, is told.

    Raises:
        UsageError: There is neither a certificate nor inputs to record one on, or these are wrong.
        CannotRunError: The candidate raised.
    """
    from verifier.certificates.certificate import Certificate  # noqa: PLC0415 - torch takes seconds to import
    from verifier.certificates.recording import record  # noqa: PLC0415
    from verifier.certificates.successor import changed  # noqa: PLC0415
    from verifier.verification import verify  # noqa: PLC0415

    mode = weights or "transfer"
    before: Certificate | None = None
    why = ""
    if file.exists():
        try:
            before = Certificate.load(file)
            found = verify(before, candidate, inputs, weights=mode, **options)
        except (
            CertificateError
        ) as error:  # of other inputs, cells or weights, another network, or none at all
            why = brief(f"the one before could not be compared with: {error}", _WIDTH)
        else:
            if found.verdict.passed:
                return found
            why = str(found.verdict)
    if inputs is None:
        if before is None:
            raise UsageError(f"{file} cannot be recorded without inputs: give them to the assertion.")
        inputs = _inputs(before, file)
    cells = options.get("cells") or ("cpu/float32",)
    certificate = record(
        candidate,
        inputs,
        weights=weights or (before.content.weights if before else "as-is"),
        cells=[getattr(cell, "cell", cell) for cell in cells],
        batch_dim=options.get("batch_dim", 0),
        seed=options.get("seed", 0) or (before.content.seed if before else 0),
        parent=before.digest if before else "",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    certificate.save(file)
    tell(certificate.told(file).rstrip())
    said = [*([why] if why else []), *([] if before is None else [changed(before, certificate)])]
    if said:
        tell(f"  what changed: {'; '.join(said)}")
    return verify(Certificate.load(file), candidate, inputs, weights=mode, **options)


def _inputs(before: Certificate, file: Path) -> Any:
    from verifier.certificates.arguments import given_to  # noqa: PLC0415

    return given_to(before.content.inputs, before.inputs, None, str(file))
