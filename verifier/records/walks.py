"""How several networks that one command verifies ended."""

from __future__ import annotations

from verifier.records.base import Record, Verdict

WALK_VERSION = 1


class WalkedNetwork(Record, frozen=True, kw_only=True):
    """How one of them ended.

    `verdict` is None where there is no result; `said` is its headline, or why there is none, `code` its exit code.
    `inputs` is the shape of the first input; `parameters`, `sites` and `compared` (the share of its sites in 0..1)
    are the candidate's, `largest` is the largest relative error of the free pass; empty or None where there is no
    result. `report` is its page, from where the walk's is; empty for none. `earlier` is where a result of before is,
    of a network that could not run this time.
    """

    name: str
    baseline: str
    candidate: str
    verdict: Verdict | None
    code: int
    said: str
    policy: str
    inputs: tuple[int, ...] = ()
    parameters: int | None = None
    sites: int | None = None
    compared: float | None = None
    largest: float | None = None
    seconds: float
    report: str = ""
    earlier: str = ""


class Walk(Record, frozen=True, kw_only=True):
    """All of them. Serialises to `index.json`, which is written after each; `awaited` are those not reached yet."""

    networks: tuple[WalkedNetwork, ...]
    awaited: tuple[str, ...] = ()
    command: str
    created: str
    seconds: float
    schema_version: int = WALK_VERSION
