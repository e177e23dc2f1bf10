"""The stages of a deployed form: from its graph to what its runtime makes of it."""

from __future__ import annotations

from verifier.records.base import Record, Verdict


class StageKernel(Record, frozen=True, kw_only=True):
    """What a stage runs at once, and which of the program's sites that makes.

    `name` is what the runtime calls it, `operator` what it computes (several in a row where the values between them
    have no counterpart in the program), `sites` the program's by name, and `dtype` the one that it computes in, empty
    where the runtime does not tell.
    """

    name: str
    operator: str
    sites: tuple[str, ...]
    dtype: str = ""


class FormStage(Record, frozen=True, kw_only=True):
    """A form after some of what its runtime does to it, held against its own program, run operator by operator.

    `role` is `baseline` or `candidate`, `form` what it is, `name` what the runtime calls the stage. `error` is how
    far its outputs are from the program's (the largest NRMSE), `exact` says that they are the same bits. Where they
    are further apart than rounding explains, `site` is the program's first that is, by name, and `operator` what
    makes it at this stage; both are empty if that was not found, and `unplaced` says why. `mended` names sites whose
    values, kept apart, make the stage agree with its program, so that what is wrong is what is fused across them; so
    it does, where `casts` says so, once it rounds between operators as torch's own kernels do.
    `cell` is the one it was run in; empty for that of the form itself. `kernels` are those that make any of the
    program's sites, in the order of execution, where the runtime tells; `kernels_left` says how many more there are
    than are kept.
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
    casts: bool = False
    cell: str = ""
    unplaced: str = ""
    kernels: tuple[StageKernel, ...] = ()
    kernels_left: int = 0
