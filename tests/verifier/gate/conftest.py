"""Outcomes to be written in every format, and a place for histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests import samples
from verifier.gate.findings import Outcome
from verifier.records import (
    CellResult,
    CertificateInfo,
    PairResult,
    Result,
    Source,
    StaticDifference,
    Status,
    UnmatchedSite,
    Verdict,
)

if TYPE_CHECKING:
    from pathlib import Path


def at(row: PairResult, line: int = 151, file: str = "torchvision/models/resnet.py") -> PairResult:
    """The row, made by these lines."""
    function = "Bottleneck.forward"
    return msgspec.structs.replace(
        row,
        baseline_source=Source(file=file, line=line, function=function),
        candidate_source=Source(file="nets/new.py", line=line + 10, function=function),
    )


def moved(result: Result, line: int) -> Result:
    """The same result, of a program whose lines have moved."""

    def of(cell: CellResult) -> CellResult:
        first = cell.first_divergence
        return msgspec.structs.replace(
            cell,
            culprits=tuple(at(row, line) for row in cell.culprits),
            first_divergence=None if first is None else at(first, line),
        )

    return msgspec.structs.replace(result, cells=tuple(map(of, result.cells)))


def without_blame(result: Result, reason: str = "published criteria failed: output MSE") -> Result:
    """A verdict that no cell has given."""
    cells = tuple(
        msgspec.structs.replace(cell, verdict=Verdict.MATCH, culprits=(), first_divergence=None)
        for cell in result.cells
    )
    return msgspec.structs.replace(
        result, cells=cells, culprits=(), first_divergence=None, reason=reason, verdict=Verdict.DIVERGED
    )


def unlocalised() -> Result:
    """A result of `--localise never`: where the two first part, and no culprits."""
    found = moved(samples.diverged(), 7)
    first = msgspec.structs.replace(found.culprits[0], status=Status.AMPLIFIES, intrinsic=None, cause=None)
    cells = tuple(msgspec.structs.replace(cell, culprits=(), first_divergence=first) for cell in found.cells)
    return msgspec.structs.replace(found, cells=cells, culprits=())


def against_a_recording() -> Result:
    """A result of a certificate: causes were not tried, and what is behind the first culprit is not known."""
    found = moved(samples.diverged(), 151)

    def row(each: PairResult) -> PairResult:
        if each.status is Status.CULPRIT:
            return msgspec.structs.replace(each, cause=None)
        return msgspec.structs.replace(each, differences=("p 2, baseline 1",) if each.index in (3, 4) else ())

    def of(cell: CellResult) -> CellResult:
        rows = tuple(map(row, cell.layers))
        culprits = tuple(map(row, cell.culprits))
        return msgspec.structs.replace(cell, layers=rows, culprits=culprits, first_divergence=culprits[0])

    cells = tuple(map(of, found.cells))
    return msgspec.structs.replace(
        found,
        cells=cells,
        culprits=cells[0].culprits,
        first_divergence=cells[0].first_divergence,
        coverage=msgspec.structs.replace(
            found.coverage, unmatched=(UnmatchedSite(side="baseline", name="relu", op="relu"),)
        ),
        static=(
            StaticDifference(kind="tensor", baseline="fc.bias", candidate="fc.bias", summary="other values"),
        ),
        certificate=CertificateInfo(
            source="kept/net.safetensors",
            digest="0" * 64,
            created="2026-01-01",
            environment=found.environment,
        ),
    )


OUTCOMES = {
    "match": Outcome.of(samples.verification()),
    "diverged": Outcome.of(moved(samples.diverged(), 151)),
    "three culprits": Outcome.of(moved(samples.three_culprits(), 20)),
    "one cause": Outcome.of(samples.caused(samples.cause(), each=3, other=2)),
    "one line": Outcome.of(moved(samples.caused(samples.cause(), each=3), 151)),
    "no lines": Outcome.of(samples.diverged()),
    "cells": Outcome.of(samples.matrix()),
    "not localised": Outcome.of(unlocalised()),
    "criteria": Outcome.of(without_blame(samples.diverged())),
    "inconclusive": Outcome.of(samples.inconclusive()),
    "a recording": Outcome.of(against_a_recording()),
    "hostile": Outcome.of(samples.hostile()),
    "could not run": Outcome(
        "new.py:load", failure="out of memory\nat \x1b[31m layer1 ]]> <&> \udc80 \ufffe"
    ),
}


@pytest.fixture(params=sorted(OUTCOMES))
def outcome(request: pytest.FixtureRequest) -> Outcome:
    """One of every kind."""
    return OUTCOMES[request.param]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where no repository is: histories are told apart from that of the one these tests lie in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME"):
        monkeypatch.delenv(name, raising=False)
