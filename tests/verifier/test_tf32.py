"""Who lowers the precision of float32 products for the whole process is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from verifier import verify
from verifier.environment import preserved

if TYPE_CHECKING:
    from pathlib import Path

BODY = """
import torch
from torch import nn
{statement}
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


def spec(directory: Path, name: str, statement: str = "") -> str:
    path = directory / f"{name}.py"
    path.write_text(BODY.format(statement=statement))
    return f"{path}:net"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("", False),
        ("torch.backends.cuda.matmul.allow_tf32 = True", True),
        ("torch.set_float32_matmul_precision('high')", True),
        ("torch.set_float32_matmul_precision('highest')", False),
    ],
)
def test_tf32_left_on_by_a_candidates_import_is_named(tmp_path: Path, statement: str, named: bool) -> None:
    with preserved():
        result = verify(
            spec(tmp_path, "ours"), spec(tmp_path, "theirs", statement), torch.randn(2, 3, 16, 16)
        )
        assert not torch.backends.cuda.matmul.allow_tf32
    assert result.verdict == "match"
    assert any(note.startswith("building the candidate allowed TF32") for note in result.notes) == named
    assert any(each.kind == "flag" and each.candidate for each in result.static) >= named


def test_tf32_that_was_on_before_is_told_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with preserved():
        torch.backends.cuda.matmul.allow_tf32 = True
        result = verify(model, model, torch.randn(2, 3, 16, 16))
        assert torch.backends.cuda.matmul.allow_tf32
    (note,) = result.notes
    assert note.startswith("something that ran before the comparison allowed TF32")


def test_tf32_that_was_set_by_the_newer_interface_is_told_and_left_as_it_was() -> None:
    backend: Any = torch.backends.cuda.matmul  # reading the older interface raises then
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with preserved():
        backend.fp32_precision = "tf32"
        result = verify(model, model, torch.randn(2, 3, 16, 16))
        assert backend.fp32_precision == "tf32"
    (note,) = result.notes
    assert note.startswith("something that ran before the comparison allowed TF32")
