"""Verifications as a judge would write them, for the tests of what is made from them."""

from __future__ import annotations

import base64
import math
import random
from typing import TYPE_CHECKING, Any

import msgspec

from tests.prepared import DIFFERS, STEPS
from verifier.records import (
    LOADING,
    Accuracy,
    Budget,
    Cause,
    CellResult,
    Comparison,
    Coverage,
    Criterion,
    Environment,
    Exhibit,
    FormStage,
    Histogram,
    InputInfo,
    KeptInFloat,
    ModelInfo,
    NoiseFloor,
    OutputAgreement,
    PairResult,
    Plane,
    Precision,
    Quantisation,
    QuantisedLayer,
    QuantiserFault,
    Source,
    StageKernel,
    StaticDifference,
    Status,
    UnmatchedSite,
    Verdict,
    WeightsInfo,
)
from verifier.storage.saving import Verification

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


def plane(low: float = -1.0, high: float = 1.0, values: bytes = bytes(range(0, 256, 16))) -> Plane:
    """Four rows of four numbers; the last is not finite if its byte is 255."""
    return Plane(rows=4, columns=4, low=low, high=high, values=base64.b64encode(values).decode())


def exhibit(row: int = 1, **fields: Any) -> Exhibit:
    """What a culprit looks like whose eps differs."""
    settings = {"operator": "batch_norm", "weight": "bn1.weight, 64"}
    defaults: dict[str, Any] = {
        "index": row,
        "site": SITES[row],
        "baseline_settings": settings | {"eps": "1e-05"},
        "candidate_settings": settings | {"weight": "stem.bn.weight, 64", "eps": "0.001"},
        "pattern": ("every element differs",),
        "channels": (0.25, 0.5, 1.0, 0.0),
        "channels_each": 16,
        "channel": 40,
        "sample": 1,
        "baseline": plane(),
        "candidate": plane(),
        "difference": plane(-0.5, 0.5),
        "histogram": Histogram(low=-0.5, high=0.5, counts=(1, 20, 300, 20, 1), equal=7, nonfinite=2),
    }
    return Exhibit(**(defaults | fields))


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
        exhibits=(exhibit(),),
    )
    numerics = msgspec.structs.replace(cell, name="cpu/float32", role="numerics")
    return verification(
        verdict=Verdict.DIVERGED,
        reason="cpu/float64: bn1: intrinsic relative error 5.0e-04",
        first_divergence=culprit,
        culprits=(culprit,),
        cells=(cell, numerics),
    )


def three_culprits() -> Verification:
    """Three sites at fault, of which one only the candidate has and one has no known cause."""
    first = diverged().culprits[0]
    extra = PairResult(
        index=4,
        baseline=None,
        candidate="layer1.0.dropout",
        op="dropout",
        shape=(8, 64, 56, 56),
        status=Status.UNMATCHED,
        reason="the baseline has no dropout here",
        cause=Cause(code="dropout-extra", summary="dropout is extra", confirmed=True, remedy="remove it"),
    )
    last = pair(
        5, total=math.nan, intrinsic=comparison(math.nan, nonfinite_mismatched=9), status=Status.CULPRIT
    )
    rows = (
        pair(0, intrinsic=comparison(0.0)),
        first,
        pair(2, total=3e-4, intrinsic=comparison(0.0), status=Status.CARRIES),
        pair(3, total=9e-3, intrinsic=comparison(0.0), status=Status.AMPLIFIES),
        extra,
        msgspec.structs.replace(last, index=5),
        msgspec.structs.replace(pair(6, total=math.nan, status=Status.CARRIES), index=6),
    )
    cell = CellResult(
        name="cpu/float64",
        role="semantics",
        verdict=Verdict.DIVERGED,
        batch_size=2,
        first_divergence=first,
        culprits=(first, extra, last),
        layers=rows,
        exhibits=(
            exhibit(),
            exhibit(4, site="layer1.0.relu", pattern=()),
            exhibit(5, channels=(math.inf, 1.0)),
        ),
    )
    covered = Coverage(
        compared=6,
        baseline_sites=6,
        candidate_sites=7,
        baseline_share=1.0,
        candidate_share=6 / 7,
        unmatched=(
            UnmatchedSite(side="candidate", name="layer1.0.dropout", op="dropout", reason=extra.reason),
        ),
    )
    return verification(
        verdict=Verdict.DIVERGED,
        first_divergence=first,
        culprits=(first, extra, last),
        cells=(cell,),
        coverage=covered,
    )


def deep(
    sites: int = 3700, cells: tuple[str, ...] = ("cpu/float64", "cpu/float32", "cpu/bfloat16")
) -> Verification:
    """As many sites as a residual network of 1,202 layers has, in three cells, one site at fault in the middle.

    No two figures are the same, which is the worst for the size of a page.
    """
    draw = random.Random(0)
    fault = sites // 2
    steps = ("conv1", "bn1", "relu", "conv2", "bn2", "add")

    def row(index: int, scale: float) -> PairResult:
        noise = scale * draw.lognormvariate(0, 0.3) * (1 + index / 500)
        total = noise if index < fault else 5e-2 * draw.lognormvariate(0, 0.2)
        intrinsic = 5e-2 if index == fault else scale * draw.lognormvariate(0, 0.2)
        status = Status.OK if index < fault else Status.CULPRIT if index == fault else Status.CARRIES
        block = index // len(steps)
        name = f"layer{1 + block // 200}.{block % 200}.{steps[index % len(steps)]}"
        figures = {"max_abs_index": tuple(draw.randrange(32) for _ in range(4)), "max_rel": draw.random()}
        return PairResult(
            index=index,
            baseline=name,
            candidate=name,
            op=steps[index % len(steps)].rstrip("12"),
            shape=(2, 16 << (block // 200), 32, 32),
            status=status,
            total=comparison(total, **figures),
            intrinsic=comparison(intrinsic, **figures),
            budget=Budget(
                rule="rounding",
                total=4 * scale * draw.lognormvariate(0, 0.1) * (1 + index / 500),
                intrinsic=2 * scale * draw.lognormvariate(0, 0.1),
                oracle_total=draw.random(),
                oracle_intrinsic=draw.random(),
            ),
            reason="" if status is Status.OK else f"total relative error {total:.1e}, allowed {scale:.1e}",
            accuracy=Accuracy(
                baseline_total=draw.random(),
                candidate_total=draw.random(),
                baseline_intrinsic=draw.random(),
                candidate_intrinsic=draw.random(),
            ),
            precision=Precision(
                overflowed=(0, 0),
                invalid=(0, 0),
                underflowed=(draw.randrange(99), draw.randrange(99)),
                subnormal=(draw.randrange(99), draw.randrange(99)),
                ulp_max=draw.randrange(9999),
                ulp_mean=draw.random(),
                bit_exact=False,
                elements=64,
            ),
        )

    found = []
    for name, scale in zip(cells, (1e-15, 1e-7, 1e-3), strict=False):
        rows = tuple(row(index, scale) for index in range(sites))
        found.append(
            CellResult(
                name=name,
                role="numerics",
                verdict=Verdict.DIVERGED,
                batch_size=2,
                layers=rows,
                first_divergence=rows[fault],
                culprits=(rows[fault],),
                exhibits=(exhibit(1, index=fault),),
                noise_floor=NoiseFloor(threads=1e-7, layout=None, position=0.0),
            )
        )
    return verification(
        verdict=Verdict.DIVERGED,
        cells=tuple(found),
        culprits=found[0].culprits,
        first_divergence=found[0].first_divergence,
        coverage=Coverage(
            compared=sites,
            baseline_sites=sites,
            candidate_sites=sites,
            baseline_share=1.0,
            candidate_share=1.0,
        ),
    )


def matrix() -> Verification:
    """Three cells: one that matches, one that diverged, and one that could not run."""
    bad = diverged()
    return msgspec.structs.replace(
        bad,
        cells=(
            msgspec.structs.replace(verification().cells[0], name="cpu/float64", role="semantics"),
            msgspec.structs.replace(bad.cells[0], name="cpu/bfloat16/channels_last", role="numerics"),
            CellResult(
                name="cuda/bfloat16/channels_last",
                role="numerics",
                verdict=Verdict.SKIPPED,
                batch_size=0,
                reason="there is no CUDA device",
            ),
        ),
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


def caused(*causes: Cause | None, each: int = 1, other: int = 0) -> Verification:
    """Sites at fault, `each` for every cause in turn, on a network of batch norms; `other` more are right."""
    rows = tuple(
        pair(
            1,
            total=1e-3,
            intrinsic=comparison(1e-3 / (1 + k)),
            status=Status.CULPRIT,
            cause=cause,
            baseline_source=Source(file="nets/old.py", line=20 + k, function="Net.forward"),
            candidate_source=Source(file="nets/new.py", line=40 + k, function="Net.forward"),
        )
        for k, cause in enumerate(causes * each)
    )
    right = tuple(pair(1, total=0.0, intrinsic=comparison(0.0)) for _ in range(other))
    layers = tuple(
        msgspec.structs.replace(
            row, index=k, baseline=f"layer{k // 10}.{k % 10}.bn", candidate=f"layer{k // 10}.{k % 10}.bn"
        )
        for k, row in enumerate((*rows, *right))
    )
    culprits = layers[: len(rows)]
    bad = diverged()
    cell = msgspec.structs.replace(
        bad.cells[0],
        first_divergence=culprits[0],
        culprits=culprits,
        layers=layers,
        exhibits=(exhibit(index=0, site="layer0.0.bn"),),
    )
    covered = Coverage(
        compared=len(layers),
        baseline_sites=len(layers),
        candidate_sites=len(layers),
        baseline_share=1.0,
        candidate_share=1.0,
    )
    written = tuple(
        StaticDifference(
            kind="hyperparameter", baseline=row.baseline, candidate=row.candidate, summary=row.cause.summary
        )
        for row in culprits
        if row.cause is not None
    )
    return msgspec.structs.replace(
        bad, first_divergence=culprits[0], culprits=culprits, cells=(cell,), coverage=covered, static=written
    )


def cause(
    code: str = "batchnorm-eps", summary: str = "eps is 0.001, the baseline's 1e-05", **fields: Any
) -> Cause:
    """A confirmed cause."""
    defaults: dict[str, Any] = {
        "code": code,
        "summary": summary,
        "confirmed": True,
        "remedy": "set eps to 1e-05",
    }
    return Cause(**(defaults | fields))


def one_cause() -> Verification:
    """Every batch norm of 52 with the same wrong eps."""
    return caused(cause(), each=52)


def nothing_loaded() -> Verification:
    """Sites whose tensors keep their initial values."""
    conv = cause("weight-not-loaded", "its weight is a fresh draw", remedy="load conv.weight")
    norm = cause("running-mean", "its running mean is all 0", also=("running-var", "weight-not-loaded"))
    found = caused(conv, norm, each=20)
    said = "nothing was loaded: 105 of 122 tensors keep their initial values"
    names = tuple(f"layer{k // 10}.{k % 10}.weight" for k in range(105))
    tensors = tuple(
        StaticDifference(
            kind="tensor", baseline=name, candidate=name, summary=f"it is a fresh draw of std {k}"
        )
        for k, name in enumerate(names[:7])
    )
    loading = StaticDifference(kind=LOADING, baseline=None, candidate=None, summary=said)
    return msgspec.structs.replace(
        found, static=(loading, *tensors), weights=WeightsInfo(mode="as-is", kept=names)
    )


def accepted() -> Verification:
    """What float64 calls different, and the published criteria accept."""
    bad = diverged()
    passed = tuple(msgspec.structs.replace(each, passed=True) for each in bad.criteria)
    return msgspec.structs.replace(bad, verdict=Verdict.MATCH, reason="", policy="criteria", criteria=passed)


def nothing_in_common() -> Verification:
    """Two models of which no two sites have been paired."""
    bad = diverged()
    lost = tuple(
        UnmatchedSite(side="candidate", name=f"block{k}", op="linear", reason="no such operator")
        for k in range(7)
    )
    none = Coverage(
        compared=0,
        baseline_sites=8,
        candidate_sites=7,
        baseline_share=0.0,
        candidate_share=0.0,
        unmatched=lost,
    )
    return msgspec.structs.replace(bad, coverage=none)


def from_photographs() -> Verification:
    """Photographs that were prepared otherwise, and blocks and stages that were run alone first."""
    return msgspec.structs.replace(diverged(), preprocessing=DIFFERS, steps=STEPS)


def deployed() -> Verification:
    """A form that its runtime's last level changes, and a culprit in its graph."""
    first = FormStage(
        role="candidate", form="an ONNX model", name="basic", verdict=Verdict.MATCH, error=0.0, exact=True
    )
    sample = diverged()
    sites = [row.candidate for row in sample.layers if row.candidate]
    alone = tuple(
        StageKernel(name=f"node_{k}", operator="Conv", sites=(site,), dtype="float32")
        for k, site in enumerate(sites)
    )
    fused = StageKernel(
        name="node_0", operator="com.microsoft.FusedConv", sites=tuple(sites[:2]), dtype="float32"
    )
    stages = (
        msgspec.structs.replace(first, kernels=alone),
        msgspec.structs.replace(
            first, name="extended", error=3.1e-7, exact=False, kernels=(fused, *alone[2:]), kernels_left=3
        ),
        msgspec.structs.replace(
            first,
            name="all",
            verdict=Verdict.DIVERGED,
            error=0.02,
            exact=False,
            site="layer1.0.relu",
            operator="Conv",
        ),
    )
    culprits = tuple(msgspec.structs.replace(row, stage="translation") for row in sample.culprits)
    return msgspec.structs.replace(sample, stages=stages, culprits=culprits)


def quantised() -> Verification:
    """A quantised candidate, of which some layers are to be kept in float."""
    layer = QuantisedLayer(
        name="node_conv_1",
        site="conv1",
        op="Conv",
        sqnr_db=41.25,
        sqnr_total_db=38.0,
        saves=0.625,
        clipped=0.0,
        used=0.992,
        input_clipped=0.0025,
        kept=True,
    )
    layers = (
        layer,
        msgspec.structs.replace(
            layer,
            name="node_pool",
            site="pool",
            op="MaxPool",
            sqnr_db=math.inf,
            saves=0.0,
            used=None,
            clipped=None,
            kept=False,
        ),
        msgspec.structs.replace(layer, name="node_fc", site="fc", op="Gemm", saves=-0.03, kept=False),
    )
    kept = KeptInFloat(
        asked="0.1%",
        measure="top-1",
        limit=0.001,
        before=0.125,
        after=0.0,
        layers=("node_conv_1",),
        exclusion="nodes_to_exclude",
        samples=8,
        runs=12,
    )
    fault = QuantiserFault(
        layer="node_fc",
        site="fc",
        tensor="fc.weight",
        code="quantiser-scale",
        said="the scale of fc.weight is 2 times the one that its codes were made with",
        evidence=("with that, its codes are the rounding of the baseline's",),
    )
    told = Quantisation(
        kind="a quantised ONNX model",
        undone=Verdict.MATCH,
        error=0.0125,
        layers=layers,
        faults=(fault,),
        kept=kept,
    )
    return msgspec.structs.replace(diverged(), quantisation=told)


HOSTILE = "</script><script>alert(1)</script>\x1b[31m{{ 7 * 7 }}[red]&\"'"


def hostile() -> Verification:
    """Text that tries to break out, wherever a user's program can put some."""
    sample = from_photographs()

    def poisoned(value: Any) -> Any:
        if isinstance(value, str) and type(value) is str:
            return HOSTILE
        if isinstance(value, Plane):
            return value  # text there is numbers
        if isinstance(value, msgspec.Struct):
            return msgspec.structs.replace(
                value,
                **{
                    field: poisoned(getattr(value, field))
                    for field in value.__struct_fields__
                    if field != "stage"  # one of few words
                },
            )
        if isinstance(value, tuple):
            return tuple(map(poisoned, value))
        return {HOSTILE: HOSTILE} if isinstance(value, dict) else value

    result: Verification = poisoned(sample)
    return result


SAMPLES: dict[str, Callable[[], Verification]] = {
    "match": verification,
    "diverged": diverged,
    "three culprits": three_culprits,
    "matrix": matrix,
    "one cause": one_cause,
    "nothing loaded": nothing_loaded,
    "accepted": accepted,
    "nothing in common": nothing_in_common,
    "inconclusive": inconclusive,
    "photographs": from_photographs,
    "deployed": deployed,
    "quantised": quantised,
    "hostile": hostile,
}
