from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from verifier.bench.intact import intact
from verifier.inputs import given as making


def test_what_was_written_in_memory_is_put_back_and_told() -> None:
    model = nn.BatchNorm1d(3)
    x = torch.arange(6.0).reshape(2, 3)
    given = making.tensors(x)
    with intact({"baseline": model, "candidate": "torchvision:resnet18"}, given) as kept:
        model.weight.detach().numpy()[1] = 7
        model.running_mean.numpy()[0] = 5  # type: ignore[union-attr]
        x.numpy()[0, 0] = 9
    assert kept.changed == ["input [0]", "the baseline's weight", "the baseline's running_mean"]
    assert kept.notes[0].startswith("input [0], the baseline's weight, the baseline's running_mean changed")
    assert model.weight.tolist() == [1, 1, 1]
    assert model.running_mean is not None
    assert model.running_mean.tolist() == [0, 0, 0]
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_is_told_where_nothing_was_written() -> None:
    with intact({"baseline": nn.Linear(2, 2)}, making.tensors(torch.tensor([float("nan"), 1.0]))) as kept:
        pass
    assert (kept.changed, kept.notes) == ([], ())


def test_it_is_put_back_after_an_exception_too() -> None:
    x = torch.zeros(3)

    def interrupted() -> None:
        x.add_(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), intact({}, making.tensors(x)):
        interrupted()
    assert x.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3.0).expand(2, 3),
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(8.0)[::2],
        torch.tensor([1 + 2j, 3j]),
        torch.tensor([True, False]),
        torch.eye(3).to_sparse(),
        torch.tensor(2.0),
    ],
    ids=["expanded", "transposed", "strided", "complex", "bool", "sparse", "scalar"],
)
def test_tensors_of_every_kind_are_put_back(tensor: Tensor) -> None:
    before = tensor.to_dense().tolist() if tensor.is_sparse else tensor.tolist()
    with intact({}, making.tensors(tensor)) as kept:
        base = tensor._values() if tensor.is_sparse else (tensor if tensor._base is None else tensor._base)
        base.logical_not_() if base.dtype is torch.bool else base.mul_(3).add_(1)
    assert (tensor.to_dense().tolist() if tensor.is_sparse else tensor.tolist()) == before
    assert kept.changed == ["input [0]"]


def test_inference_tensors_are_put_back() -> None:
    with torch.inference_mode():
        x = torch.zeros(3)
    with intact({}, making.tensors(x)), torch.inference_mode():
        x.add_(1)
    assert x.tolist() == [0, 0, 0]
