"""What is expanded is in memory once, and stays so where it is copied."""

from __future__ import annotations

import torch

from verifier.graph.calls import KeptCall
from verifier.graph.tensors import copied, once


def test_an_expanded_tensor_is_in_memory_once() -> None:
    row = torch.arange(3.0)
    assert once(row.expand(4, 3)).shape == (1, 3)
    assert torch.equal(once(row.expand(4, 3))[0], row)
    assert once(row[:1, None].expand(2, 5)).shape == (1, 1)


def test_what_is_not_expanded_is_all_there() -> None:
    tensor = torch.randn(4, 3).mT
    assert once(tensor) is tensor
    assert once(torch.zeros(1, 3)[:, :, None]).shape == (1, 3, 1)


def test_a_copy_is_as_large_in_memory_as_what_it_is_of() -> None:
    wide = torch.randn(3).expand(1000, 3)
    copy = copied(wide)
    assert torch.equal(copy, wide)
    assert copy.untyped_storage().nbytes() == wide.untyped_storage().nbytes()
    assert copy.untyped_storage().data_ptr() != wide.untyped_storage().data_ptr()


def test_a_kept_call_holds_no_more_than_what_it_was_given() -> None:
    wide = torch.randn(2, 3).expand(1000, 2, 3)
    kept = KeptCall.of(torch.bmm, (torch.randn(1000, 1, 2), wide), {}, set())
    assert kept.operands[1].untyped_storage().nbytes() == wide.untyped_storage().nbytes()
    assert torch.equal(kept.run()[0][0], torch.bmm(kept.operands[0], wide))
