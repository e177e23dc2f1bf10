"""Verifications as a judge would write them, for the tests of what is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from verifier.result import (
    Budget,
    Cause,
    CellResult,
    Comparison,
    Coverage,
    Criterion,
    Environment,
    InputInfo,
    ModelInfo,
    OutputAgreement,
    PairResult,
    Status,
    UnmatchedSite,
    Verdict,
    Verification,
    WeightsInfo,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SITES = ("conv1", "bn1", "relu", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "avgpool", "fc")


def comparison(nrmse: float, **figures: Any) -> Comparison:
    defaults: dict[str, Any] = {
        "mse": nrmse**2,
        "pearson": 1.0,
        "one_minus_pearson": nrmse**2,
        "cosine": 1.0,
        "nrmse": nrmse,
        "sqnr_db": 140.0,
        "max_abs": 4 * nrmse,
        "max_abs_index": (0, 17, 3, 5),
        "max_rel": nrmse,
        "nonfinite_baseline": 0,
        "nonfinite_candidate": 0,
        "elements": 64,
    }
    return Comparison(**(defaults | figures))


def pair(index: int, total: float = 0.0, **fields: Any) -> PairResult:
    name = SITES[index]
    defaults: dict[str, Any] = {
        "index": index,
        "baseline": name,
        "candidate": name,
        "op": "batch_norm" if "bn" in name else "conv2d",
        "shape": (8, 64, 56, 56),
        "status": Status.OK,
        "total": comparison(total),
        "budget": Budget(rule="semantics/float64", total=1e-12, intrinsic=1e-12),
    }
    return PairResult(**(defaults | fields))


def verification(**fields: Any) -> Verification:
    pairs = tuple(pair(index, total=index * 1e-8) for index in range(len(SITES)))
    cell = CellResult(
        name="cpu/float32", role="numerics", verdict=Verdict.MATCH, batch_size=8, layers=pairs, seconds=1.25
    )
    defaults: dict[str, Any] = {
        "verdict": Verdict.MATCH,
        "reason": "",
        "criteria": (
            Criterion(name="output MSE", value=3e-7, comparison="<", limit=1e-6, passed=True),
            Criterion(name="Pearson", value=0.99849, comparison=">", limit=0.999, passed=False),
        ),
        "coverage": Coverage(
            compared=8, baseline_sites=8, candidate_sites=8, baseline_share=1.0, candidate_share=1.0
        ),
        "first_divergence": None,
        "culprits": (),
        "cells": (cell,),
        "output": OutputAgreement(mse=3e-7, pearson_probabilities=0.99849, top1_agreement=0.875),
        "baseline": ModelInfo(spec="torchvision:resnet50", type="ResNet", parameters=25557032, sites=8),
        "candidate": ModelInfo(spec="reference:resnet50", type="Network", parameters=25557032, sites=8),
        "weights": WeightsInfo(mode="calibrated", parameter_map={"stem.weight": "conv1.weight"}),
        "inputs": InputInfo(
            description="standard normal numbers", shapes=((8, 3, 224, 224),), dtypes=("float32",)
        ),
        "seed": 0,
        "environment": Environment(
            python="3.11.7",
            platform="Linux",
            processor="Imaginary CPU",
            packages={"torch": "2.11"},
            devices=("cpu",),
            threads=2,
            flags={"cudnn tf32": "on"},
        ),
        "command": "python -m verifier run --arch resnet50",
        "seconds": 12.5,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Verification(**(defaults | fields))


def diverged() -> Verification:
    culprit = pair(
        1,
        total=5e-4,
        candidate="stem.bn",
        status=Status.CULPRIT,
        intrinsic=comparison(5e-4),
        reason="intrinsic relative error 5.0e-04",
        differences=("eps 0.001, baseline 1e-05",),
        cause=Cause(
            code="batchnorm-eps",
            summary="eps is 0.001 instead of 1e-05",
            confirmed=True,
            remedy="set eps to 1e-05",
            evidence=("error falls to 0",),
        ),
    )
    carried = tuple(
        pair(index, total=index * 1e-4, intrinsic=comparison(0.0), status=Status.CARRIES)
        for index in range(2, 8)
    )
    cell = CellResult(
        name="cpu/float64",
        role="semantics",
        verdict=Verdict.DIVERGED,
        batch_size=2,
        reason="bn1: intrinsic relative error 5.0e-04",
        first_divergence=culprit,
        culprits=(culprit,),
        layers=(pair(0), culprit, *carried),
        seconds=0.5,
    )
    numerics = msgspec.structs.replace(cell, name="cpu/float32", role="numerics")
    return verification(
        verdict=Verdict.DIVERGED,
        reason="cpu/float64: bn1: intrinsic relative error 5.0e-04",
        first_divergence=culprit,
        culprits=(culprit,),
        cells=(cell, numerics),
    )


def inconclusive() -> Verification:
    unmatched = tuple(
        UnmatchedSite(side="candidate", name=f"block{index}", op="linear", reason="no such operator")
        for index in range(7)
    )
    return verification(
        verdict=Verdict.INCONCLUSIVE,
        reason="only 40% of the sites could be paired; 80% are needed to say more",
        coverage=Coverage(
            compared=3,
            baseline_sites=8,
            candidate_sites=10,
            baseline_share=3 / 8,
            candidate_share=0.3,
            unmatched=unmatched,
        ),
        cells=(),
        output=None,
        criteria=(),
        notes=("left in training mode, as it was built: bn1",),
    )


HOSTILE = "</script><script>alert(1)</script>\x1b[31m{{ 7 * 7 }}[red]&\"'"


def hostile() -> Verification:
    """Text that tries to break out, wherever a user's program can put some."""
    sample = diverged()

    def poisoned(value: Any) -> Any:
        if isinstance(value, str) and type(value) is str:
            return HOSTILE
        if isinstance(value, msgspec.Struct):
            return msgspec.structs.replace(
                value, **{field: poisoned(getattr(value, field)) for field in value.__struct_fields__}
            )
        if isinstance(value, tuple):
            return tuple(map(poisoned, value))
        return {HOSTILE: HOSTILE} if isinstance(value, dict) else value

    result: Verification = poisoned(sample)
    return result


SAMPLES: dict[str, Callable[[], Verification]] = {
    "match": verification,
    "diverged": diverged,
    "inconclusive": inconclusive,
    "hostile": hostile,
}


@pytest.fixture(params=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Verification:
    """Each kind of verification in turn."""
    return SAMPLES[request.param]()


@pytest.fixture
def make_verification() -> Callable[..., Verification]:
    """Builds a matching verification, with other fields if given."""
    return verification


@pytest.fixture
def make_pair() -> Callable[..., PairResult]:
    """Builds a pair by its index and total error, with other fields if given."""
    return pair


@pytest.fixture
def make_comparison() -> Callable[..., Comparison]:
    """Builds a comparison by its relative error, with other figures if given."""
    return comparison


@pytest.fixture
def matching() -> Verification:
    return verification()


@pytest.fixture(name="diverged")
def _diverged() -> Verification:
    return diverged()


@pytest.fixture(name="inconclusive")
def _inconclusive() -> Verification:
    return inconclusive()


@pytest.fixture(name="hostile")
def _hostile() -> Verification:
    return hostile()


@pytest.fixture
def scores() -> OutputAgreement:
    """An output of eight samples' class scores, with all that is measured of them."""
    return OutputAgreement(
        mse=3e-13,
        pearson_probabilities=1.0,
        top1_agreement=1.0,
        top5_agreement=0.875,
        kl_mean=4e-10,
        kl_max=1.2e-9,
        smallest_margin=0.31,
        largest_logit_error=4.1e-6,
        top1_safe=True,
        bit_exact=False,
        samples=8,
    )
