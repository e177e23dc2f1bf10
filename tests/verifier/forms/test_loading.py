"""Files and objects of deployed forms are found out; what cannot be looked into is told with what to give instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from verifier.errors import SourceError, UsageError
from verifier.forms.form import Form
from verifier.forms.loading import is_file, of_file, of_object

if TYPE_CHECKING:
    from pathlib import Path


def test_a_module_is_no_form() -> None:
    model = nn.Linear(2, 2)
    assert of_object("candidate", model) is model


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning", "ignore:.*:DeprecationWarning")
def test_a_torchscript_module_is_a_form() -> None:
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    form = of_object("candidate", traced)
    assert isinstance(form, Form)
    assert form.kind == "a TorchScript module"


def test_an_exported_program_is_its_module() -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    form = of_object("baseline", program)
    assert isinstance(form, Form)
    assert form.kind == "an exported program"
    assert form.program(torch.ones(1, 2)).shape == (1, 2)


def test_anything_else_is_no_model() -> None:
    with pytest.raises(UsageError, match=r"the candidate is a dict, not a torch\.nn\.Module"):
        of_object("candidate", {})


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "NET.ONNX", "there/net.pt2"])
def test_files_are_known_by_their_names(name: str) -> None:
    assert is_file(name)
    assert not is_file("net.py:build")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        of_file(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("name", "what"), [("net.onnx", "an ONNX model"), ("net.pt2", "an exported program")]
)
def test_a_file_of_something_else_is_told(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"no model at all")
    with pytest.raises(SourceError, match=f"cannot be read as {what}"):
        of_file(str(tmp_path / name))
