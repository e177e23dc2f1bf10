"""Forms of a model that cannot be looked into are told with what to give in their place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from verifier.errors import UsageError
from verifier.models.forms import refuse_form


def test_modules_are_taken() -> None:
    refuse_form("candidate", nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning", "ignore:.*:DeprecationWarning")
def test_a_torchscript_module_is_told() -> None:
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    with pytest.raises(UsageError, match="the candidate is a TorchScript module, which this verifier cannot"):
        refuse_form("candidate", traced)


def test_an_exported_program_is_told() -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    with pytest.raises(UsageError, match=r"exported program.*program\.module\(\)"):
        refuse_form("baseline", program)


def test_anything_else_is_no_model() -> None:
    with pytest.raises(UsageError, match=r"the candidate is a dict, not a torch\.nn\.Module"):
        refuse_form("candidate", {})
