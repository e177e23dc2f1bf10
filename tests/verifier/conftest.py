"""Records for the tests of what is made from records."""

from __future__ import annotations

import enum
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from verifier.diagnose import edited
from verifier.records import (
    Budget,
    Cause,
    CellResult,
    Comparison,
    Coverage,
    Environment,
    InputInfo,
    ModelInfo,
    PairResult,
    Status,
    Verdict,
    WeightsInfo,
)
from verifier.storage.saving import Verification

if TYPE_CHECKING:
    from collections.abc import Callable


# A record holds hundreds of values. Drawing, rendering and saving one takes what it takes on a busy machine.
settings.register_profile("records", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("records")


@pytest.fixture
def brief_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """No edit is found before the time for a search is over: for faults that only have a place it may be short."""
    monkeypatch.setattr(edited, "_SECONDS", 0.5)


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a record's field type, NaN and infinities among the numbers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([strategy(each) for each in arguments])
    if origin is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*map(strategy, arguments))
    if origin is tuple:
        # Records hold records: two of each on every level would be thousands of values.
        is_record = isinstance(arguments[0], type) and issubclass(arguments[0], msgspec.Struct)
        return st.lists(strategy(arguments[0]), max_size=1 if is_record else 2).map(tuple)
    if origin is dict:
        return st.dictionaries(*map(strategy, arguments), max_size=2)
    if hint is float:
        largest = sys.float_info.max  # as masks hold it
        return st.floats() | st.sampled_from(
            [float("nan"), float("inf"), -float("inf"), largest, -largest, 5e-324]
        )
    if hint is int:
        return st.integers(-(2**53), 2**53) | st.sampled_from([0, 2**63 - 1, -(2**63)])
    if hint is str:
        long = ["so long a reason; " * 99, "layers.0." * 99, "it differs from ".join("abcdefghijklmnopq")]
        return st.text(max_size=8) | st.sampled_from(
            ["nan", "inf", "null", "true", "</script>", "a,b\n", *long]
        )
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return struct(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    return {type(None): st.none(), bool: st.booleans()}[hint]


def struct(record: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(record)
    fields = {name: strategy(hints[name]) for name in record.__struct_fields__}
    if "schema_version" in fields:
        fields["schema_version"] = st.just(1)
    return st.builds(record, **fields)


@pytest.fixture(scope="session")
def draw_verification() -> Callable[[st.DataObject], Verification]:
    """Draws any record the types allow, sensible or not."""
    any_verification = struct(Verification)

    def draw(data: st.DataObject) -> Verification:
        drawn: Verification = data.draw(any_verification)
        return drawn

    return draw


def comparison(nrmse: float = 1e-7, **figures: Any) -> Comparison:
    defaults: dict[str, Any] = {
        "mse": nrmse**2,
        "pearson": 1 - nrmse,
        "one_minus_pearson": nrmse,
        "cosine": 1.0,
        "nrmse": nrmse,
        "sqnr_db": 140.0,
        "max_abs": 4 * nrmse,
        "max_abs_index": (0, 17, 3, 5),
        "max_rel": nrmse,
        "nonfinite_baseline": 0,
        "nonfinite_candidate": 0,
    }
    return Comparison(**(defaults | figures))


@pytest.fixture
def verification() -> Verification:
    """Two cells of three pairs, one of them without a partner and one a culprit."""
    budget = Budget(rule="semantics/float64", total=1e-12, intrinsic=1e-12)
    pairs = (
        PairResult(
            index=0,
            baseline="conv1",
            candidate="stem.conv",
            op="conv2d",
            shape=(8, 64, 112, 112),
            status=Status.OK,
            total=comparison(),
            intrinsic=comparison(),
            budget=budget,
        ),
        PairResult(
            index=1,
            baseline="bn1",
            candidate="stem.bn",
            op="batch_norm",
            shape=(8, 64, 112, 112),
            status=Status.CULPRIT,
            total=comparison(5e-4),
            intrinsic=comparison(
                float("inf"), pearson=float("nan"), max_abs_index=None, nonfinite_candidate=12
            ),
            budget=budget,
            reason="intrinsic error inf, allowed 1e-12",
            cause=Cause(
                code="eps", summary="eps is 1e-3 instead of 1e-5", confirmed=True, evidence=("1e-3",)
            ),
        ),
        PairResult(
            index=2, baseline=None, candidate="extra, or not", op="relu", shape=(), status=Status.UNMATCHED
        ),
    )
    cells = tuple(
        CellResult(
            name=name,
            role=role,
            verdict=Verdict.DIVERGED,
            batch_size=8,
            first_divergence=pairs[1],
            culprits=(pairs[1],),
            layers=pairs,
        )
        for name, role in (("cpu/float64", "semantics"), ("cpu/float32", "numerics"))
    )
    model = ModelInfo(spec="torchvision:resnet50", type="ResNet", parameters=25557032, sites=175)
    return Verification(
        verdict=Verdict.DIVERGED,
        reason="bn1 diverges",
        criteria=(),
        coverage=Coverage(
            compared=2, baseline_sites=2, candidate_sites=3, baseline_share=1.0, candidate_share=2 / 3
        ),
        first_divergence=pairs[1],
        culprits=(pairs[1],),
        cells=cells,
        output=None,
        baseline=model,
        candidate=model,
        weights=WeightsInfo(mode="calibrated"),
        inputs=InputInfo(description="normal", shapes=((8, 3, 224, 224),), dtypes=("float32",)),
        seed=0,
        environment=Environment(
            python="3.11", platform="Linux", processor="", packages={}, devices=("cpu",), threads=2, flags={}
        ),
        command="python -m verifier run --arch resnet50",
        seconds=12.5,
        created="2026-01-01T00:00:00+00:00",
    )
