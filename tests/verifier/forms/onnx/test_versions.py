"""Operators have meant other things before: ONNX's models in older opsets give in float64 what the runtime gives."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from verifier.cells import ORACLE
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.models.casting import running

if TYPE_CHECKING:
    from collections.abc import Sequence

ALWAYS = {"AveragePool", "Gather", "Hardmax", "LogSoftmax", "MaxPool", "Resize", "RoiAlign", "Softmax"}
RANDOM = ("Bernoulli", "Random", "Multinomial", "Dropout")
OLDEST = 7  # that the runtime takes
# The expected numbers of these leave float32 little: they add up what cancels.
COARSE = {"DFT": 1e-3, "STFT": 1e-3}


@cache
def versions() -> dict[str, list[int]]:
    """For each of ONNX's operators the last opset of each of its versions, but for the newest."""
    since = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            since[schema.name].append(schema.since_version)
    return {op: sorted({each - 1 for each in found if each > OLDEST}) for op, found in since.items()}


@cache
def cases() -> dict[str, list[Any]]:
    """ONNX's models of one node of numbers, by its operator."""
    import warnings

    from onnx.backend.test.case.node import collect_testcases

    found = defaultdict(list)
    with warnings.catch_warnings(action="ignore"):
        collected: Any = collect_testcases(None)
    for case in collected:
        nodes = list(case.model.graph.node)
        values = [value for inputs, outputs in case.data_sets for value in (*inputs, *outputs)]
        arrays = all(isinstance(value, np.ndarray | np.generic) for value in values)
        ties = "same_values" in case.name  # of which torch does not say which are the topmost
        if (
            len(nodes) == 1
            and arrays
            and not ties
            and all(np.asarray(value).dtype.kind in "fiub" for value in values)
        ):
            found[nodes[0].op_type].append(case)
    return found


def older(model: onnx.ModelProto, opset: int, values: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The model in another opset, with its integers held by it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, 10)
    del copy.opset_import[:]
    copy.opset_import.append(helper.make_opsetid("", opset))
    del copy.graph.input[:]
    for k, (given, value) in enumerate(zip(model.graph.input, values, strict=True)):
        if k and value.dtype.kind != "f":
            copy.graph.initializer.append(numpy_helper.from_array(value, given.name))
        else:
            copy.graph.input.append(given)
    return copy


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """What the runtime gives; None where the opset has no such model, or the runtime no such kernel."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(each) for each in session.run(None, feeds)]
    except Exception:  # the checker's own, and several of the runtime's
        return None


@pytest.mark.parametrize(
    "op",
    [
        pytest.param(op, marks=() if op in ALWAYS else pytest.mark.thorough)
        for op, found in sorted(versions().items())
        if found and not op.startswith(RANDOM)
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of ONNX's reference implementation
def test_older_versions_give_what_the_runtime_does(op: str) -> None:
    for case in cases()[op]:
        for values, _ in case.data_sets:
            arrays = [np.asarray(value) for value in values]
            for opset in versions()[op]:
                model = older(case.model, opset, arrays)
                held = {each.name for each in model.graph.initializer}
                feeds = {
                    given.name: array
                    for given, array in zip(case.model.graph.input, arrays, strict=True)
                    if given.name not in held
                }
                wanted = run(model, feeds)
                if wanted is not None:
                    agree(model, feeds, wanted, f"{case.name} in opset {opset}", COARSE.get(op, 1e-4))


def agree(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], wanted: Sequence[np.ndarray], what: str, rtol: float
) -> None:
    """A model gives in float64 what the runtime gave, but for rounding."""
    tensors = [torch.from_numpy(np.array(value)) for value in feeds.values()]
    with torch.no_grad(), running(ORACLE):
        program = OnnxProgram(Plan(model, what)).double()
        found = program(*(t.double() if t.is_floating_point() else t for t in tensors))
    half = any(each.dtype == np.float16 for each in (*feeds.values(), *wanted))
    for one, other in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        if other.dtype.kind == "f":
            np.testing.assert_allclose(
                one.double().numpy(),
                other.astype(np.float64),
                rtol=1e-2 if half else rtol,
                atol=2e-3 if half else rtol / 4,
                err_msg=what,
            )
        else:
            np.testing.assert_array_equal(one.numpy(), other, err_msg=what)
