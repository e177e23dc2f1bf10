"""Whose an exception is: what a model's own code raises is told as its own, with the line, whatever raised it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from verifier import VerifierError, verify
from verifier.border.error_texts import first_line, raised_by_program
from verifier.cli import exits

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Mine(Exception):
    """What models raise here, in places where nobody expects it."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.fc(x)


class Copying(Net):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise Mine


class Pickled(Net):
    def __getstate__(self) -> object:
        raise Mine


class Restored(Net):
    def __setstate__(self, state: object) -> None:
        raise Mine


class Parameters(Net):
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        raise Mine


class NamedParameters(Net):
    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        raise Mine


class NamedBuffers(Net):
    def named_buffers(self, *args: Any, **kwargs: Any) -> Any:
        raise Mine


class Modules(Net):
    def modules(self, *args: Any, **kwargs: Any) -> Iterator[nn.Module]:
        raise Mine


class NamedModules(Net):
    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        raise Mine


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()

        def hook(*_: object) -> None:
            raise Mine

        self.fc.register_forward_hook(hook)


class HookedBefore(Net):
    def __init__(self) -> None:
        super().__init__()

        def hook(*_: object) -> None:
            raise Mine

        self.register_forward_pre_hook(hook)


class Rewritten(nn.Module):
    """A parametrisation that works once, when it is registered."""

    calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        Rewritten.calls += 1
        if Rewritten.calls > 1:
            raise Mine
        return weight


def parametrised() -> nn.Module:
    Rewritten.calls = 0
    model = Net()
    torch.nn.utils.parametrize.register_parametrization(model.fc, "weight", Rewritten())
    return model


class Listing(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise Mine


class ReturningList(Net):
    def forward(self, x: Tensor) -> Any:
        return Listing([super().forward(x)])


class Table(Mapping[str, Tensor]):
    def __iter__(self) -> Iterator[str]:
        return iter(("a",))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> Tensor:
        raise Mine


class ReturningTable(Net):
    def forward(self, x: Tensor) -> Any:
        return Table()


class Key:
    def __str__(self) -> str:
        raise Mine


class ReturningKeys(Net):
    def forward(self, x: Tensor) -> Any:
        return {Key(): super().forward(x)}


@dataclasses.dataclass
class Record:
    value: Tensor

    def __getattribute__(self, name: str) -> Any:
        if name == "value":
            raise Mine
        return super().__getattribute__(name)


class ReturningRecord(Net):
    def forward(self, x: Tensor) -> Any:
        return Record(super().forward(x))


class Watched(Tensor):
    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
        raise Mine


class ReturningSubclass(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).as_subclass(Watched)


class Stopping(Net):
    def forward(self, x: Tensor) -> Any:
        raise StopIteration("Mine")


class Grouping(Net):
    def forward(self, x: Tensor) -> Any:
        raise ExceptionGroup("Mine", [ValueError("one"), ValueError("two")])


class Importing(Net):
    def forward(self, x: Tensor) -> Any:
        raise ImportError("Mine")


class Reading(Net):
    def forward(self, x: Tensor) -> Any:
        raise FileNotFoundError(2, "Mine", "table.bin")


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Silent(Net):
    def forward(self, x: Tensor) -> Any:
        raise Wordless("Mine")


class Late(Net):
    calls = 0

    def forward(self, x: Tensor) -> Any:
        Late.calls += 1
        if Late.calls > 1:
            raise Mine
        return super().forward(x)


def late() -> nn.Module:
    Late.calls = 0
    return Late()


MODELS: list[Callable[[], nn.Module]] = [
    Copying, Pickled, Restored, Parameters, NamedParameters, NamedBuffers, Modules, NamedModules, Hooked,
    HookedBefore, parametrised, ReturningList, ReturningTable, ReturningKeys, ReturningRecord, ReturningSubclass,
    Stopping, Grouping, Importing, Reading, Silent, late,
]  # fmt: skip


@pytest.mark.parametrize("side", ["baseline", "candidate"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_a_models_code_raises_is_told_as_its_own_with_the_line(
    model: Callable[[], nn.Module], side: str
) -> None:
    baseline, candidate = (model(), Net()) if side == "baseline" else (Net(), model())

    with pytest.raises(VerifierError) as raised:
        verify(baseline, candidate, X)

    message, code = exits.told(raised.value)
    assert code in (2, 3)
    assert "\n" not in message
    assert "Mine" in message or "Wordless" in message
    assert re.search(r"\(test_error_texts\.py, line \d+\)", message)
    assert "defect" not in message


def test_a_program_that_fails_for_other_reasons_than_its_inputs_is_not_told_to_change_them() -> None:
    with pytest.raises(VerifierError, match=r"the baseline .* fails: ImportError: Mine"):
        verify(Importing(), Net(), X)


def test_what_the_verifier_does_wrong_itself_is_a_defect() -> None:
    try:
        first_line(None, "too many")  # type: ignore[arg-type, call-arg]
    except TypeError as error:
        message, code = exits.told(error)
    # the call above is wrong, and its last frame is this file's
    assert (code, "defect" in message) == (3, False)

    try:
        raised_by_program(None)  # type: ignore[arg-type]
    except AttributeError as error:
        message, code = exits.told(error)
    assert (code, "This is a defect of the verifier" in message) == (3, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: model.fc.to("meta"), "on the meta device"),
        (lambda model: model.register_buffer("eye", torch.eye(3).to_sparse()), "eye"),
    ],
    ids=["meta", "sparse"],
)
def test_state_without_values_is_named(change: Callable[[Any], object], says: str) -> None:
    model = Net()
    change(model)

    with pytest.raises(VerifierError, match=says):
        verify(Net(), model, X, weights="as-is")


class OnMeta(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).to("meta")


def test_a_result_without_values_is_told() -> None:
    with pytest.raises(VerifierError, match="returns a tensor on the meta device"):
        verify(Net(), OnMeta(), X)


def test_lines_that_only_say_where_in_cpp_something_was_raised_are_left_out() -> None:
    error = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:84:\n"
        "Check 'm_weights_provider' failed at src/core/xml_util/src/xml_deserialize_util.cpp:887:\n"
        "Empty weights data!\n\n"
    )
    assert first_line(error) == "RuntimeError: Empty weights data!"
    assert first_line(RuntimeError("Exception from a.cpp:1:")) == "RuntimeError: Exception from a.cpp:1:"
