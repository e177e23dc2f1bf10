"""One fault a run: exactly its site is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

RESNET18 = ("--arch", "resnet18")
RESNET50 = ("--arch", "resnet50")
TORCHVISION18 = ("--baseline", "torchvision:resnet18")
TORCHVISION50 = ("--baseline", "torchvision:resnet50")

Site = tuple[str | None, str | None]


@pytest.mark.parametrize(
    ("arguments", "site"),
    [
        pytest.param(
            [*TORCHVISION50, "--candidate", "faults.py:other_eps"],
            ("layer2.1.bn2", "layer2.1.bn2"),
            id="a norm's eps is 1e-3",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:relu_removed"],
            ("layer2.1.relu", None),
            id="a ReLU is missing",
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:max_pool_unpadded"],
            ("maxpool", "maxpool"),
            id="the max-pool is not padded",
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:weights_perturbed"],
            ("layer3.1.conv1", "layer3.1.conv1"),
            id="a convolution's weights are 1e-4 off",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:weights_perturbed", "--weights", "as-is"],
            ("layer3.1.conv1", "layer3.1.conv1"),
            id="a convolution's weights are 1e-4 off, each model with its own",
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:mean_shifted"],
            ("layer3.0.downsample.1", "layer3.0.downsample.1"),
            id="a shortcut's running mean is shifted",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            [*TORCHVISION18, "--candidate", "faults.py:left_training"],
            ("layer1.1.bn1", "layer1.1.bn1"),
            id="a norm is left in training mode",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_exactly_the_faulty_site_is_blamed(
    compare: Callable[..., Ended], arguments: list[str], site: Site
) -> None:
    ended = compare(*arguments)

    assert ended.code == 1, ended.err
    result = ended.result()
    first, culprits = result["first_divergence"], result["culprits"]
    assert (first["baseline"], first["candidate"]) == site
    assert [(culprit["baseline"], culprit["candidate"]) for culprit in culprits] == [site]


def test_a_relu_moved_before_the_add_is_blamed_where_it_is_and_where_it_is_not(
    compare: Callable[..., Ended],
) -> None:
    ended = compare(*TORCHVISION50, "--candidate", "faults.py:relu_before_add")

    assert ended.code == 1, ended.err
    result = ended.result()
    first, culprits = result["first_divergence"], result["culprits"]
    assert (first["baseline"], first["candidate"]) == ("layer3.0.add", "layer3.0.relu_2")
    (culprit,) = culprits  # one fault, seen at two sites
    assert (culprit["baseline"], culprit["candidate"]) == ("layer3.0.add", "layer3.0.relu_2")
    assert culprit["cause"]["code"] == "order-different"
    assert culprit["cause"]["confirmed"]


def test_the_other_version_of_the_bottleneck_diverges_at_the_first_strided_convolution(
    compare: Callable[..., Ended],
) -> None:
    ended = compare(*RESNET50, "--candidate", "reference:resnet50_v1")

    assert ended.code == 1, ended.err
    result = ended.result()
    assert result["first_divergence"]["baseline"] == "layer2.0.conv1"
    assert [culprit["baseline"] for culprit in result["culprits"]] == [
        f"layer{stage}.0.conv{k}"
        for stage in (2, 3, 4)
        for k in (1, 2)  # a moved stride has two ends
    ]


def test_a_diverged_run_says_on_stdout_where_and_how_much(eps_fault: Ended) -> None:
    assert eps_fault.code == 1
    assert eps_fault.err == ""
    assert eps_fault.out.startswith("diverged")
    assert "bn2" in eps_fault.out.splitlines()[0]


def test_a_diverged_run_leaves_the_same_files_as_a_match(
    eps_fault: Ended, written: Callable[[str], set[str]]
) -> None:
    assert eps_fault.new == written("DIR")


def test_a_candidate_that_raises_in_the_run_is_reported_with_its_layer_and_error(
    compare: Callable[..., Ended],
) -> None:
    ended = compare("--baseline", "nets.py:net", "--candidate", "nets.py:losing_its_nerve")

    message = ended.refusal(3)
    assert "candidate" in message
    assert "relu_1" in message
    assert "ZeroDivisionError: no water" in message


def test_a_candidate_whose_control_flow_depends_on_the_batch_is_compared_on_the_whole_batch(
    compare: Callable[..., Ended],
) -> None:
    ended = compare(
        *("--baseline", "nets.py:net", "--candidate", "nets.py:minding_the_batch", "--batch-size", "3")
    )

    assert ended.code == 1, ended.err
    (culprit,) = ended.result()["culprits"]
    assert culprit["candidate"] == "tanh"
    assert culprit["cause"]["code"] == "tanh-extra"
