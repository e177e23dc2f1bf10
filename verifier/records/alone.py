"""Stage 0 as the whole of a run: how photographs are prepared, without a model."""

from __future__ import annotations

from verifier.records.circumstances import Environment, Preprocessing

PREPARATION_VERSION = 1


class PreparationAlone(Preprocessing, frozen=True, kw_only=True):
    """What `preprocess` found, and when, where and how. Serialises to `preprocessing.json`."""

    seed: int = 0
    environment: Environment | None = None
    command: str = ""
    created: str = ""
    seconds: float = 0.0
    schema_version: int = PREPARATION_VERSION
