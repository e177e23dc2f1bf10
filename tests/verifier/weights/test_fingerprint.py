from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def of(**tensors: Tensor) -> str:
    return Hasher().of_all(tensors.items())


def test_the_digest_is_sha256_over_names_dtypes_shapes_and_bits() -> None:
    values = np.arange(6, dtype="<f4")
    inner = hashlib.sha256(values.tobytes()).hexdigest()
    whole = hashlib.sha256(f"a\0torch.float32\0(2, 3)\0{inner}\n".encode()).hexdigest()
    assert of(a=torch.arange(6, dtype=torch.float32).reshape(2, 3)) == whole


def test_order_and_memory_layout_do_not_count() -> None:
    a, b = torch.randn(4, 3, 5, 5), torch.randn(7)
    assert Hasher().of_all([("a", a), ("b", b)]) == Hasher().of_all([("b", b), ("a", a)])
    assert of(a=a) == of(a=a.contiguous(memory_format=torch.channels_last))
    assert of(a=a.transpose(0, 1)) == of(a=a.transpose(0, 1).contiguous())


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t + 0.5,
        lambda t: t.double(),
        lambda t: t.reshape(3, 2),
        lambda t: torch.where(t == 0, -0.0, t),  # the sign of zero is a bit too
    ],
)
def test_any_other_bit_dtype_or_shape_gives_another_digest(change: Callable[[Tensor], Tensor]) -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert of(a=tensor) != of(a=change(tensor))


def test_another_name_gives_another_digest() -> None:
    tensor = torch.ones(2)
    assert of(a=tensor) != of(b=tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3, dtype=torch.complex64).conj(),
        torch.eye(3).to_sparse(),
        torch.tensor(1.5),
        torch.empty(0, 3),
        torch.tensor([True, False]),
        torch.zeros((1 << 23) + 5)[1:],  # longer than one piece
    ],
    ids=str,
)
def test_every_kind_of_tensor_has_a_digest(tensor: Tensor) -> None:
    assert len(of(a=tensor)) == 64
    assert of(a=tensor) == of(a=tensor.clone())


def test_tensors_that_share_memory_are_told_apart() -> None:
    tensor = torch.arange(6.0)
    hasher = Hasher()
    assert hasher.of_all([("a", tensor[:3])]) != hasher.of_all([("a", tensor[3:])])
    assert hasher.of_all([("a", tensor.reshape(2, 3))]) != hasher.of_all(
        [("a", tensor.reshape(2, 3).T.reshape(2, 3))]
    )
