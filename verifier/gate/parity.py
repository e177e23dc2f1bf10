"""An assertion for tests: a candidate is the function that its baseline is."""

from __future__ import annotations

import contextlib
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.gate import renewing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import nn

    from verifier.certificates.certificate import Certificate
    from verifier.storage.saving import Verification


class ParityError(AssertionError):
    """The candidate is not the baseline's function, or too little was compared to say; the message has a few lines.

    `verification` is the result.
    """

    def __init__(self, message: str, verification: Verification) -> None:
        super().__init__(message)
        self.verification = verification


@dataclass
class Here:
    """The test that runs: where its reports go, whether passing ones are kept too, and how many it has made.

    `test` is its id, `update` whether certificates that do not fit are recorded anew, `told` what is said of that.
    """

    folder: Path
    every: bool = False
    made: int = field(default=0)
    test: str = ""
    update: bool = False
    told: list[str] = field(default_factory=list)

    def next(self) -> Path:
        """A folder for one more report."""
        self.made += 1
        return self.folder if self.made == 1 else self.folder.with_name(f"{self.folder.name}-{self.made}")


_here: ContextVar[Here | None] = ContextVar("_here", default=None)


@contextlib.contextmanager
def reporting(here: Here) -> Iterator[None]:
    """Within, reports of `assert_parity` go to the test that runs."""
    token = _here.set(here)
    try:
        yield
    finally:
        _here.reset(token)


def folder_of(test: str) -> str:
    """The name of a folder for a test, by its id: readable, portable, and no other test's."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", test.replace("::", "-")).strip("-.")[-80:].strip("-.")
    return f"{readable}-{sha256(test.encode()).hexdigest()[:8]}"


def assert_parity(
    candidate: nn.Module | str,
    baseline: nn.Module | str | Certificate | Path,
    inputs: Any = None,
    *,
    weights: str | None = None,
    report: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Verification:
    """Assert that `candidate` is the function that `baseline` is.

    Args:
        candidate: The model under test, or a specification of it.
        baseline: The trusted model, a specification of it, or a certificate or its file. With `pytest
            --parity-update` a file that is not there, or that the candidate does not match, is recorded anew: of the
            candidate.
        inputs: What both are run on, in any form that `verifier.verify` takes; None where a certificate holds them.
        weights: Each model's own (`as-is`) where nothing is said, unlike in `verify`: a test that converts weights is
            to fail where they are wrong. `transfer` gives both the baseline's, for networks with different random
            values. With a certificate, what that was recorded with.
        report: Where the report goes; None for the folder of the test that runs, if pytest runs it.
        options: What else `verifier.verify` takes.

    Returns:
        What was found.

    Raises:
        ParityError: The verdict is neither `match` nor `accepted`.
        UsageError, CannotRunError: As `verify` raises them.
    """
    from reports.failure import failure  # noqa: PLC0415 - pytest loads this module in every session
    from verifier.certificates.verifying import is_certificate  # noqa: PLC0415
    from verifier.dumps.verifying import is_dump  # noqa: PLC0415
    from verifier.verification import verify  # noqa: PLC0415 - torch takes seconds to import

    __tracebackhide__ = True
    here = _here.get()
    kept = is_certificate(baseline) and not is_dump(baseline)
    file = Path(baseline) if kept and isinstance(baseline, str | Path) else None
    test = "" if here is None else here.test
    if file is not None and here is not None and here.update:
        found = renewing.renewed(
            file, candidate, inputs, weights=weights, options=options, tell=here.told.append
        )
    else:
        if file is not None:
            renewing.check_there(file, test)
        found = verify(
            baseline, candidate, inputs, weights=weights or ("transfer" if kept else "as-is"), **options
        )
    wrong = not found.verdict.passed
    place = Path(report) if report is not None else None
    if place is None and here is not None and (wrong or here.every):
        place = here.next()
    if place is not None:
        found.save(place)
    if wrong:
        page = None if place is None else str(place / "report.html")
        meant = "" if file is None else f"if this was meant: {renewing.command(test)}"
        raise ParityError("\n".join(failure(found, page, meant)), found)
    return found
