"""Each block alone on the baseline's inputs, then each stage: only the one with the fault is blamed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reference_models
from verifier import Verification, verify
from verifier.errors import UsageError
from verifier.models import composed_baselines
from verifier.records import Level, Step, Verdict

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def stepwise(candidate: nn.Module, baseline: nn.Module | None = None) -> Verification:
    torch.manual_seed(0)
    ours = composed_baselines.BUILDERS["cifar_resnet20"]().eval() if baseline is None else baseline
    return verify(ours, candidate, IMAGES, weights="calibrated", granularity="block", cells=("cpu/float64",))


def candidate() -> nn.Module:
    torch.manual_seed(0)
    return reference_models.get("cifar_resnet20")().eval()


@pytest.fixture(scope="module")
def faithful() -> Verification:
    return stepwise(candidate())


@pytest.fixture(scope="module")
def faulty() -> Verification:
    model = candidate()
    model.get_submodule("stages.1.1.second.norm").eps = 1e-3  # type: ignore[assignment]
    return stepwise(model)


def named(result: Verification, level: Level) -> list[Step]:
    return [step for step in result.steps if step.level is level]


def test_blocks_come_first_and_stages_after_them_each_in_order_of_execution(faithful: Verification) -> None:
    assert [step.name for step in faithful.steps] == [
        "conv1 to relu",
        *[f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)],
        "avgpool to fc",
        "conv1 to relu",
        *[f"layer{stage}" for stage in (1, 2, 3)],
        "avgpool to fc",
    ]
    assert [step.level for step in faithful.steps] == [Level.BLOCK] * 11 + [Level.STAGE] * 5


def test_a_faithful_network_matches_in_every_step(faithful: Verification) -> None:
    assert {step.verdict for step in faithful.steps} == {Verdict.MATCH}
    assert faithful.verdict is Verdict.MATCH


@pytest.mark.parametrize("level", list(Level))
def test_every_site_of_the_network_is_in_one_step_of_a_level(faithful: Verification, level: Level) -> None:
    assert sum(step.sites for step in named(faithful, level)) == faithful.coverage.baseline_sites


def test_the_block_with_a_fault_alone_is_blamed_and_those_behind_it_are_not(faulty: Verification) -> None:
    wrong = [step.name for step in named(faulty, Level.BLOCK) if step.verdict is not Verdict.MATCH]

    assert wrong == ["layer2.1"]
    assert faulty.verdict is Verdict.DIVERGED


def test_the_stage_with_a_fault_alone_is_blamed(faulty: Verification) -> None:
    assert [step.name for step in named(faulty, Level.STAGE) if step.verdict is not Verdict.MATCH] == [
        "layer2"
    ]


def test_a_blocks_error_is_what_it_gives_on_the_baselines_inputs() -> None:
    """An oracle of its own: the two blocks are called by hand on the baseline's tensor."""
    ours, theirs = (
        composed_baselines.BUILDERS["cifar_resnet20"]().double().eval(),
        candidate().double().eval(),
    )
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    theirs.get_submodule("stages.1.1.second.norm").eps = 1e-3  # type: ignore[assignment]
    theirs.get_submodule("stages.0.1.second.norm").eps = 1e-2  # type: ignore[assignment]
    seen: list[torch.Tensor] = []
    hook = ours.get_submodule("layer2.1").register_forward_pre_hook(
        lambda _, args: seen.append(args[0].clone())
    )
    with torch.no_grad():
        ours(IMAGES.double())
        hook.remove()
        one = ours.get_submodule("layer2.1")(seen[0].clone())
        two = theirs.get_submodule("stages.1.1")(seen[0].clone())
    expected = ((one - two).norm() / one.norm()).item()

    result = verify(
        ours, theirs, IMAGES.double(), weights="as-is", granularity="block", cells=("cpu/float64",)
    )

    step = next(step for step in result.steps if step.name == "layer2.1")
    assert step.error is not None
    assert step.error.nrmse == pytest.approx(expected, rel=1e-6)


def test_where_the_baseline_is_not_built_of_blocks_the_candidates_are_meant() -> None:
    torch.manual_seed(0)
    ours = composed_baselines.BUILDERS["small_resnet18"]().eval()
    theirs = reference_models.get("small_resnet18")().eval()
    images = torch.randn(2, 3, 224, 224)

    result = verify(ours, theirs, images, granularity="block", cells=("cpu/float64",), localise=False)

    blocks = [step for step in named(result, Level.BLOCK) if step.name.startswith("blocks.")]
    assert [step.name for step in blocks] == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    assert {step.verdict for step in result.steps} == {Verdict.MATCH}


def test_a_network_without_blocks_has_no_steps() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()

    assert verify(model, model, IMAGES, granularity="block", cells=("cpu/float64",)).steps == ()


def test_steps_are_only_taken_where_they_are_asked_for() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).eval()

    assert verify(model, model, IMAGES, cells=("cpu/float64",)).steps == ()
    with pytest.raises(UsageError, match="granularity is 'layer'; known are site, block"):
        verify(model, model, IMAGES, granularity="layer")
