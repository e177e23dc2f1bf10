"""Faults of quantised ONNX models: each is told at its site, and not as what quantisation costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from reports.grouping import groups
from tests.verifier.quantised.quantising import Planting, exported, pictures, quantised, small
from verifier import verify
from verifier.judge import Policy
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path

Plant = Callable[[Planting], None]


@pytest.fixture(scope="module")
def floating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(small(), pictures(), tmp_path_factory.mktemp("float") / "net.onnx")


@pytest.fixture(scope="module", params=[False, True], ids=["per tensor", "per channel"])
def file(request: pytest.FixtureRequest, floating: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("int8") / "net.onnx"
    return quantised(floating, to, pictures(32, seed=5), per_channel=request.param)


def scaled(op: str, module: str, place: int, factor: float) -> Plant:
    """A scale of a module's input off by a factor, where it is quantised and where it is read."""
    return lambda net: net.times(net.grid(op, module, place).input[1], factor)


def shifted(op: str, module: str, place: int, by: int) -> Plant:
    """A zero point off by some codes."""

    def plant(net: Planting) -> None:
        name = net.grid(op, module, place).input[2]
        net.put(name, net.array(name) + by)

    return plant


def exchanged(one: str, other: str, place: int, *parts: int) -> Plant:
    """Codes (0) or scales (1) of two layers exchanged."""

    def plant(net: Planting) -> None:
        first, second = (net.grid("Conv", name, place) for name in (one, other))
        for part in parts:
            net.exchange(first.input[part], second.input[part])

    return plant


def rewired(net: Planting) -> None:
    """A layer that reads what another one reads."""
    net.of("Conv", "conv3").input[0] = net.of("Conv", "conv2").input[0]


def padded(net: Planting) -> None:
    """A convolution whose padding is one row higher up."""
    [pads] = [each for each in net.of("Conv", "conv3").attribute if each.name == "pads"]
    pads.ints[:] = [2, 1, 0, 1]


def misread(net: Planting) -> None:
    """Codes that are read with another scale than made them."""
    node = net.grid("Conv", "conv3", 0)
    other = onnx.TensorProto()
    other.CopyFrom(net.held(node.input[1]))
    other.name = node.input[1] = "other"
    net.graph.initializer.append(other)
    net.times("other", 0.5)


def moved(op: str, module: str) -> Plant:
    """One number of a bias off by a step."""

    def plant(net: Planting) -> None:
        name = net.grid(op, module, 2).input[0]
        codes = net.array(name)
        codes[3] += 1
        net.put(name, codes)

    return plant


def dropped(net: Planting) -> None:
    """Every bias 0, in steps so large that this is the nearest."""
    for node in net.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            made = net.maker(node.input[2])
            net.put(made.input[0], net.array(made.input[0]) * 0)
            net.times(made.input[1], 1e8)


SCALE, ZERO = "quantiser-scale", "quantiser-zero-point"
FAULTS: dict[str, tuple[Plant, str, str]] = {
    "weight scale x2": (scaled("Conv", "conv2", 1, 2), "bn2", SCALE),
    "weight scale /2": (scaled("Conv", "conv2", 1, 0.5), "bn2", SCALE),
    "linear weight scale x2": (scaled("Gemm", "fc2", 1, 2), "fc2", SCALE),
    "linear weight scale /4": (scaled("Gemm", "fc2", 1, 0.25), "fc2", SCALE),
    "input scale x2": (scaled("Conv", "conv2", 0, 2), "bn2", SCALE),
    "input scale /2": (scaled("Conv", "conv2", 0, 0.5), "bn2", SCALE),
    "linear input scale x2": (scaled("Gemm", "fc2", 0, 2), "fc2", SCALE),
    "linear input scale /2": (scaled("Gemm", "fc2", 0, 0.5), "fc2", SCALE),
    "weight zero point": (shifted("Conv", "conv2", 1, 3), "bn2", ZERO),
    "linear weight zero point": (shifted("Gemm", "fc2", 1, -2), "fc2", ZERO),
    "zero point in place of a ReLU": (shifted("Conv", "conv2", 0, 16), "relu", "relu-missing"),
    "another layer's weight": (exchanged("conv2", "conv3", 1, 0, 1), "bn2", ""),
    "another layer's weight scale": (exchanged("conv2", "conv3", 1, 1), "bn2", SCALE),
    "another layer's input scale": (exchanged("conv2", "conv3", 0, 1), "bn2", SCALE),
    "read with another scale": (misread, "conv3", SCALE),
    "rewired": (rewired, "conv2", ""),
    "padded otherwise": (padded, "conv3", ""),
    "a number of a bias off by a step": (moved("Conv", "conv3"), "conv3", ""),
    "a number of a linear bias off by a step": (moved("Gemm", "fc1"), "fc1", ""),
    "no bias": (dropped, "bn1", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_first_at_its_site_and_not_as_the_cost_of_quantising(fault: str, file: Path) -> None:
    plant, site, code = FAULTS[fault]
    net = Planting(file)
    plant(net)
    found = verify(small(), net.model, pictures())
    first = found.first_divergence
    assert found.verdict is Verdict.DIVERGED
    assert first is not None
    assert first.stage == "translation"
    told = next(row for row in found.culprits if row.stage == "translation")
    assert told.baseline == site
    assert told.cause is not None
    assert code in ("", told.cause.code)
    assert found.quantisation is not None
    assert found.quantisation.undone is Verdict.DIVERGED or found.quantisation.faults


def test_scales_along_another_axis_are_told(floating: Path, tmp_path: Path) -> None:
    file = quantised(floating, tmp_path / "net.onnx", pictures(32, seed=5), per_channel=True)
    net = Planting(file)
    [axis] = [each for each in net.grid("Conv", "conv2", 1).attribute if each.name == "axis"]
    axis.i = 1
    first = verify(small(), net.model, pictures()).first_divergence
    assert first is not None
    assert (first.baseline, first.stage) == ("bn2", "translation")
    assert first.cause is not None
    assert first.cause.code == "quantiser-axis"


@pytest.mark.parametrize("factor", [2, 0.5], ids=["too large", "too small"])
def test_a_weight_quantised_with_a_scale_that_it_does_not_explain_is_told(factor: float, file: Path) -> None:
    net = Planting(file)
    node = net.grid("Conv", "conv3", 1)
    scale = net.array(node.input[1]).reshape(-1, *[1] * 3) * factor
    net.times(node.input[1], factor)
    weight = small().conv3.weight.detach().numpy()
    net.put(node.input[0], np.clip(np.round(weight / scale), -128, 127))
    found = verify(small(), net.model, pictures())
    assert found.quantisation is not None
    assert found.quantisation.undone is Verdict.MATCH
    assert found.first_divergence is not None
    assert (found.first_divergence.baseline, found.first_divergence.stage) == ("conv3", "translation")
    weights = [each for each in found.quantisation.faults if each.tensor == "conv3.weight"]
    assert [(each.code, ("too large" in each.said) == (factor > 1)) for each in weights] == [(SCALE, True)]


def test_a_baseline_of_other_weights_is_not_taken_for_quantisation(file: Path) -> None:
    other = small()
    with torch.no_grad():
        other.fc2.weight[3, 4] += 0.02
    found = verify(other, str(file), pictures())
    assert found.first_divergence is not None
    assert (found.first_divergence.baseline, found.first_divergence.stage) == ("fc2", "translation")


def test_a_task_policy_allows_what_quantisation_costs_and_no_wrong_graph_beside_it(file: Path) -> None:
    lenient = Policy(name="lenient", task_decides=True, top1_agreement=0.0, kl_mean=1e9, logit_error=1e9)
    assert verify(small(), onnx.load(file), pictures(), policy=lenient).verdict is Verdict.MATCH
    net = Planting(file)
    padded(net)
    found = verify(small(), net.model, pictures(), policy=lenient)
    assert found.verdict is Verdict.DIVERGED
    assert "conv3 is wrong beside what is quantised" in found.reason


def test_where_the_task_fails_a_wrong_quantiser_is_told_before_what_rounding_costs(file: Path) -> None:
    net = Planting(file)
    padded(net)
    strict = Policy(name="strict-task", task_decides=True, top1_agreement=1.0, kl_mean=0.0, logit_error=0.0)
    found = verify(small(), net.model, pictures(), policy=strict)
    assert found.reason.startswith("conv3 is wrong beside what is quantised")
    assert next(group.first.stage for group in groups(found)) == "translation"
