"""What is measured beside other tools compares what it says, and goes where the page says it was measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.benchmarks import peers
from tests.benchmarks.subjects import Given


def net() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), nn.Flatten(), nn.Linear(144, 5)
    )


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, peers.Cost], dict[str, str]]:
    x = torch.randn(2, 3, 8, 8)
    return peers.measured(Given("small", net, net, x), 1)


def test_every_way_compares_what_it_says(measured: tuple[dict[str, peers.Cost], dict[str, str]]) -> None:
    costs, refused = measured
    compared = {way: cost.compared for way, cost in costs.items()}
    assert compared["hooks on leaves that clone, then scipy"] == 4
    assert compared["hooks on blocks that clone, then scipy"] == 1
    assert compared["torchvision's feature extractor, all nodes"] == 4
    assert compared["transformers' model debugger"] == 4
    assert compared["PT2E's numeric debugger, a graph and its copy"] == 4
    assert compared["verifier, free pass, all sites"] == 4
    assert {*compared, *refused} >= {*peers.PEERS}
    assert {*refused} <= {"TorchLens, all operations"}  # not installed, where only the tests are run


def test_hooks_see_values_of_before_they_are_overwritten() -> None:
    seen: list[object] = []
    model = net()
    block = model.get_submodule("0.0")
    handle = block.register_forward_hook(peers._keeping(seen))
    model(torch.randn(1, 3, 8, 8))
    handle.remove()
    assert isinstance(seen[0], Tensor)
    assert bool((seen[0] < 0).any())


def test_the_page_gets_the_new_figures_and_keeps_the_rest() -> None:
    page = f"# A\n\n{peers.BEGIN}\nold\n{peers.END}\n\n## B\n"
    assert peers.with_measured(page, "new") == f"# A\n\n{peers.BEGIN}\n\nnew\n{peers.END}\n\n## B\n"
    with pytest.raises(ValueError, match="no part of the page"):
        peers.with_measured("# A\n", "new")
    peers.with_measured(peers.PAGE.read_text(encoding="utf-8"), "new")  # the page itself has such a part
