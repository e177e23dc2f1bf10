"""How a check ended: everything that a policy names, verified."""

from __future__ import annotations

from verifier.records.base import Record, Verdict

CHECK_VERSION = 1


class CheckedLater(Record, frozen=True, kw_only=True):
    """How a model ended that was checked alone after the check of all; fields as in `CheckedModel` and `Check`."""

    policy: str
    verdict: Verdict | None
    code: int
    said: str
    created: str
    accepted: tuple[str, ...] = ()


class CheckedModel(Record, frozen=True, kw_only=True):
    """How one of a policy's models ended.

    `verdict` is None where there is no result; `said` is its headline, or why there is none. `accepted` are sentences
    about what the policy accepts, `weights` is one on those the models computed with. `report` is the page of its
    own, from where the check's is; empty for none. It is that of `later`, if it was checked alone since.
    """

    name: str
    baseline: str
    candidate: str
    verdict: Verdict | None
    code: int
    said: str
    accepted: tuple[str, ...] = ()
    weights: str = ""
    report: str = ""
    later: CheckedLater | None = None


class Check(Record, frozen=True, kw_only=True):
    """The whole answer of a check: `code` is its exit code, `failures` say what fails in the policy itself."""

    policy: str
    code: int
    models: tuple[CheckedModel, ...]
    failures: tuple[str, ...]
    command: str
    created: str
    seconds: float
    schema_version: int = CHECK_VERSION
