"""The verification of a candidate where a certificate stands in the baseline's place."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from verifier.bench.as_given import as_given, with_runs
from verifier.bench.deployed import in_cells, refuse_drawn, refuse_other_cells, staged
from verifier.bench.exercise import exercised
from verifier.bench.intact import intact
from verifier.bench.kernels import with_kernels
from verifier.bench.side import Side
from verifier.border.depth import room_for
from verifier.cells import ORACLE, Cell, missing_here
from verifier.certificates.arguments import given_to
from verifier.certificates.certificate import SUFFIX, Certificate
from verifier.certificates.comparing import Found, compared_with
from verifier.certificates.content import shapes_of
from verifier.certificates.recording import SAMPLES, undisturbed
from verifier.environment import describe, tf32_allowed
from verifier.errors import CertificateError, DeviceError
from verifier.inputs.samples import sample
from verifier.judge import concluded, coverage, with_sources
from verifier.models.compiled import interpreted
from verifier.records import CertificateInfo, WeightsInfo
from verifier.storage.saving import Verification
from verifier.weights import resolve
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from verifier.bench.protocol import Protocol
    from verifier.cells import Request
    from verifier.inputs import Inputs
    from verifier.judge import Policy
    from verifier.records import CellResult

_DEFAULTS = ("transfer", "calibrated")  # what is asked for where nobody asks
_SOME = 3


def is_certificate(baseline: object) -> bool:
    """Whether a baseline is a certificate, or the name of one's file."""
    named = isinstance(baseline, str) and baseline.lower().endswith(SUFFIX)
    return named or isinstance(baseline, Certificate | Path)


def verified_with(
    baseline: Certificate | str | Path,
    candidate: nn.Module | str,
    inputs: Any,
    *,
    weights: str,
    parameter_map: Mapping[str, object] | None,
    requests: Sequence[Request],
    protocol: Protocol,
    seed: int,
    command: str,
    needing: Mapping[str, bool],
) -> Verification:
    """Is `candidate` the function that was recorded, and if not, where do they part?

    Args:
        baseline: The certificate, or its file.
        candidate: The model under test, or a specification of it.
        inputs: What was recorded on, where the certificate does not hold it or how it is made; else None.
        weights: A mode of `verifier.verify`; its defaults stand for the certificate's.
        parameter_map: As for `verifier.verify`.
        requests: The cells asked for.
        protocol: How it is judged.
        seed: For a candidate that is built; 0 for the certificate's.
        command: How it was asked for, for the record.
        needing: What was asked for that only a live baseline could give, by its option.

    Raises:
        CertificateError: The certificate cannot be read, or does not fit what was asked.
        CannotRunError: This machine cannot run it, or the candidate raised.
    """
    started = time.perf_counter()
    for option, asked in needing.items():
        if asked:
            raise CertificateError(
                f"{option} needs a live baseline, and a certificate is none: leave it out, or give the trusted model "
                "itself as the baseline."
            )
    certificate = baseline if isinstance(baseline, Certificate) else Certificate.load(baseline)
    content, source = certificate.content, certificate.source or "the certificate"
    if weights not in (*_DEFAULTS, content.weights):
        raise CertificateError(f"{source} was recorded with weights {content.weights}, not {weights}.")
    cells = _cells(certificate, requests, source)
    given = given_to(content.inputs, certificate.inputs, inputs, source)
    lowered = tf32_allowed()
    with undisturbed(), intact({"candidate": candidate}, given) as kept:
        side = Side.of("candidate", candidate, seed or content.seed)
        refuse_drawn(content.weights, side, "Record the certificate with --weights as-is.")
        refuse_other_cells(cells, side)
        known = resolve(parameter_map or {}, shapes_of(content), side.shapes())
        few = sample(given, SAMPLES) if content.by_sample else given
        with room_for(side.model):
            protocol.progress("running the model as it was given", 0, 0)
            runs = [] if side.recompiled else [as_given(side, [given])]
            with interpreted():
                found = compared_with(certificate, side, given, few, cells, known, protocol)
            if side.recompiled:
                runs += in_cells(side, found.fitted.masters, cells, [given])
    results = staged(with_sources(with_runs(found.cells, runs), found.alignment), [side])
    verification = _verification(
        certificate,
        side,
        found,
        results,
        given,
        few,
        seed or content.seed,
        protocol.policy,
        command,
        started,
        (
            *(note for run in runs for note in run.notes),
            *kept.notes,
            *_notes(certificate, found, lowered=lowered),
        ),
    )
    ran = (stage for run in runs for stage in run.stages)
    stages = with_kernels(ran, [side], [found.alignment.candidate])
    return msgspec.structs.replace(verification, stages=stages)


def _cells(certificate: Certificate, requests: Sequence[Request], source: str) -> list[Cell]:
    names = [each.record.cell for each in certificate.recordings]
    if ORACLE.name not in names:
        raise CertificateError(f"{source} holds no recording in {ORACLE.name}, which every certificate has.")
    missing = missing_here(requests)
    found = []
    for cell, _ in requests:
        if cell.name not in names:
            raise CertificateError(
                f"{source} holds {', '.join(sorted(names))} and not {cell.name}; record that too."
            )
        if cell in missing:
            raise DeviceError(f"{cell.name} cannot run here: {missing[cell]}.")
        if cell != ORACLE:
            found.append(cell)
    return found


def _verification(
    certificate: Certificate,
    side: Side,
    found: Found,
    results: tuple[CellResult, ...],
    given: Inputs,
    few: Inputs,
    seed: int,
    policy: Policy,
    command: str,
    started: float,
    notes: tuple[str, ...],
) -> Verification:
    content = certificate.content
    alignment, fit = found.alignment, found.fitted
    covered = coverage(
        alignment, found.silent, found.words, found.read, own_weights=content.weights == "as-is"
    )
    return Verification(
        **concluded(policy, results, covered)._asdict(),
        baseline=content.model,
        candidate=side.info(alignment.candidate),
        weights=WeightsInfo(
            mode=content.weights,
            source=certificate.source,
            parameter_map={name: each.text for name, each in fit.assemblies.items()},
            unmapped_candidate=fit.unmapped,
            kept=fit.kept,
            candidate_digest=Hasher().of_all(fit.masters.items()),
        ),
        inputs=msgspec.structs.replace(given.info, digest=content.inputs.info.digest),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=policy.name,
        notes=notes,
        static=found.static,
        exercise=exercised(alignment, [side.model], [few, given], given, found.static, results, found.tried),
        certificate=CertificateInfo(
            source=certificate.source,
            digest=certificate.digest,
            created=content.created,
            parent=content.parent,
            environment=content.environment,
        ),
    )


def _notes(certificate: Certificate, found: Found, *, lowered: bool) -> Iterator[str]:
    content = certificate.content
    yield (
        f"the baseline is a recording of {content.model.spec} from {content.created}: figures with an interval are "
        "estimates, and calls after the first were not recorded"
    )
    here = describe().packages
    then = content.environment.packages
    other = [
        f"{name} {then[name]}, here {here[name]}"
        for name in ("torch", "torchvision")
        if name in then and name in here and then[name] != here[name]
    ]
    if other:
        yield f"recorded under {'; '.join(other)}"
    redrawn = found.fitted.redrawn
    if redrawn:
        more = ", ..." if redrawn[_SOME:] else ""
        yield (
            f"{len(redrawn)} of the candidate's tensors start from other random numbers than the recorded ones, of "
            f"the same distribution: {', '.join(redrawn[:_SOME])}{more}. This is taken for the libraries' doing; an "
            "edit of them would not show"
        )
    changed = [each.candidate or "" for each in found.fitted.differences]
    if changed:
        culprits = {row.candidate for cell in found.cells for row in cell.culprits}
        sites = found.alignment.candidate.sites
        own = {use.name for site in sites if site.name in culprits for use in site.tensors}
        changed.sort(key=lambda name: name not in own)  # a culprit's own ones first
        more = ", ..." if changed[_SOME:] else ""
        yield (
            f"{len(changed)} of the candidate's tensors hold other values than the recorded ones: "
            f"{', '.join(changed[:_SOME])}{more}"
        )
    if found.fitted.unmapped and content.weights != "as-is":
        lost = found.fitted.unmapped
        more = ", ..." if lost[_SOME:] else ""
        yield (
            f"{len(lost)} of the candidate's tensors have no partner in the recording and kept values of their own: "
            f"{', '.join(lost[:_SOME])}{more}. If they have one, name it with --map"
        )
    if lowered:
        yield "something that ran before the comparison allowed TF32 for float32 products; here it is off"
