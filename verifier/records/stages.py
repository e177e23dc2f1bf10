"""The stages of a deployed form: from its graph to what its runtime makes of it."""

from __future__ import annotations

from verifier.records.base import Record, Verdict


class FormStage(Record, frozen=True, kw_only=True):
    """A form after some of what its runtime does to it, held against its own program, run operator by operator.

    `role` is `baseline` or `candidate`, `form` what it is, `name` what the runtime calls the stage. `error` is how
    far its outputs are from the program's (the largest NRMSE), `exact` says that they are the same bits. Where they
    are further apart than rounding explains, `site` is the program's first that is, by name, and `operator` what
    makes it at this stage; both are empty if that was not found. `mended` names sites whose values, kept apart, make
    the stage agree with its program, so that what is wrong is what is fused across them. `cell` is the one it was
    run in; empty for that of the form itself.
    """

    role: str
    form: str
    name: str
    verdict: Verdict
    error: float
    exact: bool
    site: str = ""
    operator: str = ""
    mended: tuple[str, ...] = ()
    cell: str = ""
