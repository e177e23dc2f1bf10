"""Records of how photographs were prepared, and of blocks and stages that were run alone."""

from __future__ import annotations

import math

import msgspec

from verifier.records import (
    Cause,
    Comparison,
    Level,
    Preprocessing,
    StageDifference,
    StageResult,
    Step,
    Verdict,
)

CAUSE = Cause(code="resize-kernel", summary="it is bicubic", confirmed=True, remedy="use bilinear")
GAP = StageDifference(largest=32.0, mean=1.5, share=0.8, picture="a.png")


def stage(name: str, status: str, **more: object) -> StageResult:
    fields = {
        "name": name,
        "words": "as it should",
        "status": status,
        "rule": "",
        "unit": "1/255",
        "pictures": 2,
    }
    return msgspec.convert(fields | more, StageResult)


def prepared(status: str, *stages: StageResult, first: str = "", **more: object) -> Preprocessing:
    return msgspec.structs.replace(
        Preprocessing(
            recipe="classification",
            candidate="prep.py:made",
            status=status,
            stages=stages,
            first_difference=first,
            files=("a.png", "b.png"),
        ),
        **more,
    )


DIFFERS = prepared(
    "differs",
    stage("decode", "given"),
    stage("resize", "differs", intrinsic=GAP, total=GAP, cause=CAUSE),
    first="resize",
    cause=CAUSE,
    applied=True,
)


def step(level: Level, name: str, verdict: Verdict = Verdict.MATCH, nrmse: float = 0.0) -> Step:
    error = Comparison(
        mse=nrmse**2,
        pearson=1.0,
        one_minus_pearson=0.0,
        cosine=1.0,
        nrmse=nrmse,
        sqnr_db=math.inf,
        max_abs=nrmse,
        max_abs_index=None,
        max_rel=nrmse,
        nonfinite_baseline=0,
        nonfinite_candidate=0,
        elements=64,
    )
    return Step(level=level, name=name, candidate=name, sites=9, verdict=verdict, error=error, allowed=1e-12)


STEPS = (
    step(Level.BLOCK, "layer1.0", Verdict.DIVERGED, 2e-4),
    step(Level.BLOCK, "layer1.1"),
    step(Level.STAGE, "layer1", Verdict.DIVERGED, 3e-4),
)
