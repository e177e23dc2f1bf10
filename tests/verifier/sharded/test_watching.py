"""One pass, noted by names; what is overwritten is what the model goes on with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verifier.sharded.states import watched
from verifier.sharded.watching import GIVEN, Key


class Net(nn.Module):
    """A linear layer, in-place activations and a branch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.one(x)
        y.relu_()
        made: Tensor = y + self.two(y)
        return made


def test_modules_and_the_calls_between_them_have_the_names_of_sites() -> None:
    net, x = Net(), torch.randn(2, 4)
    found = watched(net, (x,), {})
    assert [key.name for key in found.events] == ["one", "relu", "two", "add", "the model"]
    assert torch.equal(
        found.events[Key("one", "", 0)].value, net.one(x)
    )  # as it was before it was written to
    assert found.events[Key("", "add", 0)].above == (Key("", "relu", 0), Key("two", "", 0))
    assert found.events[Key("two", "", 0)].uses == ("two.weight", "two.bias")
    assert torch.equal(found.outputs[0], net(x))


def test_no_hook_is_left() -> None:
    net = Net()
    watched(net, (torch.randn(2, 4),), {})
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in net.modules())


def test_what_is_overwritten_is_read() -> None:
    net, right = Net(), torch.randn(2, 4)
    for key in (Key("", "relu", 0), Key("two", GIVEN, 0)):
        found = watched(net, (torch.randn(2, 4),), {}, instead={key: right})
        assert torch.equal(found.outputs[0], right + net.two(right))


def test_a_dropout_is_left_to_who_draws_for_it() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    seen: list[Key] = []

    def drop(key: Key, given: Tensor, share: float) -> Tensor:
        seen.append(key)
        return given * share

    found = watched(net, (x := torch.randn(2, 4),), {}, dropped=drop)
    assert seen == [Key("1", "", 0)]
    assert torch.equal(found.outputs[0], net[0](x) * 0.5)
