"""Inputs that a user's function makes, and what of them is no tensor."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, inputs, verify
from verifier.cells import Cell
from verifier.errors import InputError, SourceError, UsageError
from verifier.graph.tensors import leaves_in, mapped
from verifier.inputs.samples import sample
from verifier.models.casting import arguments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAKERS = """
import torch
from beside import WORD

class Cache:
    def __init__(self):
        self.keys, self.seen = [torch.ones(2, 3, 4)], 3

table = {"ids": torch.arange(6).reshape(2, 3)}
number = 3

def tokens():
    return torch.randint(101, (2, 16))

def positional():
    return tokens(), None, "mean"

def keywords():
    from beside import MODE
    return {"ids": tokens(), "use_cache": False, "nested": [1.5, {"mode": MODE + WORD}], "cache": Cache()}

def learned():
    return torch.ones(2, requires_grad=True) * 2

def needs(batch):
    return tokens()

def raises():
    raise LookupError("no corpus")

def words():
    return "hello", True

def generator():
    return torch.ones(2), (k for k in range(3))
"""


@pytest.fixture
def makers(tmp_path: Path) -> str:
    (tmp_path / "makers.py").write_text(MAKERS)
    (tmp_path / "beside.py").write_text("WORD, MODE = 'y', 'man'")
    return str(tmp_path / "makers.py")


def complaint(make: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_function_returns_a_tensor_or_positional_or_keyword_arguments(makers: str) -> None:
    (ids,) = inputs.read(f"{makers}:tokens").args
    assert ids.shape == (2, 16)
    made = inputs.read(f"{makers}:positional")
    assert made.args[1:] == (None, "mean")
    made = inputs.read(f"{makers}:keywords")
    assert made.args == ()
    assert made.kwargs["use_cache"] is False
    assert made.kwargs["nested"] == [
        1.5,
        {"mode": "many"},
    ]  # it imports what lies beside it, when called, too
    assert inputs.read(f"{makers}:table").kwargs["ids"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_was_given_besides_tensors_is_told(makers: str) -> None:
    info = inputs.read(f"{makers}:keywords").info
    assert info.settings == {
        "use_cache": "False",
        "nested[0]": "1.5",
        "nested[1]['mode']": "'many'",
        "cache": "a Cache",
    }
    assert info.shapes == ((2, 16), (2, 3, 4))
    assert info.description.startswith(
        f"tensors from {makers}:keywords, 2 x 16, 2 x 3 x 4, use_cache=False, "
    )


def test_the_seed_decides_what_a_function_draws_and_nothing_global_changes(makers: str) -> None:
    state = torch.get_rng_state()
    one, same, other = (inputs.read(f"{makers}:tokens", seed).args[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_gradients_come_along(makers: str) -> None:
    assert not inputs.read(f"{makers}:learned").args[0].requires_grad


def test_a_file_of_tensors_is_read_as_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a:b.npy", np.ones(3))
    assert inputs.read(tmp_path / "a:b.npy").info.shapes == ((3,),)


def test_a_tokenizers_mapping_is_keyword_arguments() -> None:
    made = inputs.tensors(UserDict(input_ids=torch.ones(2, 3)))
    assert list(made.kwargs) == ["input_ids"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", ("there is no 'absent'",)),
        ("number", ("neither a function nor tensors", "int")),
        ("needs", ("cannot be called without arguments", "batch")),
        ("raises", ("LookupError: no corpus", "makers.py")),
        ("words", ("no tensor in the inputs",)),
        ("generator", ("cannot be copied for every call", "generator")),
        ("Cache", ("a Cache cannot be given to a model",)),
    ],
)
def test_what_makes_no_inputs_is_told(makers: str, name: str, says: tuple[str, ...]) -> None:
    message = complaint(lambda: inputs.read(f"{makers}:{name}"))
    for part in says:
        assert part in message


def test_a_python_file_without_a_function_and_a_module_that_is_none_are_told(makers: str) -> None:
    assert f"as {makers}:inputs" in complaint(lambda: inputs.read(makers))
    assert "does not exist" in complaint(lambda: inputs.read("gone.py:tokens"))
    assert "file.py:function" in complaint(lambda: inputs.read("x.png"))
    with pytest.raises(SourceError, match="there is no module"):
        inputs.read("gone_module.somewhere:tokens")


# --- objects


class Cache:
    """Keys of earlier steps, as generation hands them on."""

    def __init__(self, *keys: Tensor) -> None:
        self.keys = list(keys)
        self.length = sum(each.shape[1] for each in keys)
        self.itself = self


class Slotted:
    __slots__ = ("empty", "mask")

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask


def test_tensors_inside_objects_are_found_once_with_their_places() -> None:
    x = torch.ones(2, 1)
    found = dict(leaves_in({"b": Cache(x), "a": (Slotted(x), 3)}))
    assert {place for place, leaf in found.items() if leaf is x} == {"['b'].keys[0]", "['a'][0].mask"}
    assert found["['b'].length"] == 1
    assert next(iter(leaves_in({"b": 1, "a": 2}, by_name=True))) == ("['a']", 2)


def test_an_object_given_twice_is_one_object_to_a_model_too() -> None:
    cache = Cache(torch.ones(2, 1))
    one, two = mapped((cache, [cache]), torch.Tensor.double)
    assert one is two[0]
    assert one.itself is one
    assert one is not cache
    assert one.keys[0].dtype is torch.float64
    assert cache.keys[0].dtype is torch.float32


def test_what_is_inside_objects_is_cast_and_cut_into_samples() -> None:
    given = inputs.tensors((torch.rand(4, 3), Cache(torch.rand(4, 2), torch.rand(3, 2))))
    args, _ = arguments(sample(given, 2), Cell("cpu", "float64"))
    assert [each.shape for each in args[1].keys] == [(2, 2), (3, 2)]
    assert {each.dtype for each in args[1].keys} == {torch.float64}


class Step(nn.Module):
    """One step of a generation: it reads what earlier ones left, and leaves its own."""

    def __init__(self, first: int = 0, *, forgets: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.first = first
        self.forgets = forgets

    def forward(self, x: Tensor, cache: Any = None, mode: str = "sum") -> Tensor:
        keys = self.project(x)
        cache.keys.append(keys)
        cache.length += keys.shape[1]
        whole = torch.cat(cache.keys[self.first :], 1)
        if self.forgets and mode == "mean":
            return whole.sum(1)
        return whole.mean(1) if mode == "mean" else whole.sum(1)


def step(**options: Any) -> Step:
    torch.manual_seed(0)
    return Step(**options).eval()


@pytest.fixture
def generation() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(2, length, 4, generator=generator) for length in (3, 2, 5)]
    return {"x": draw[2], "cache": Cache(*draw[:2]), "mode": "mean"}


def test_models_that_write_into_a_cache_match_and_the_callers_is_untouched(
    generation: dict[str, Any],
) -> None:
    result = verify(step(), step(), generation)
    assert result.verdict is Verdict.MATCH
    assert result.notes == ()
    assert len(generation["cache"].keys) == 2
    assert generation["cache"].length == 5
    assert result.inputs.settings == {"cache": "a Cache", "mode": "'mean'"}


def test_a_candidate_that_leaves_out_part_of_the_cache_is_found(generation: dict[str, Any]) -> None:
    result = verify(step(), step(first=1), generation)
    assert result.verdict is Verdict.DIVERGED
    assert [row.baseline for row in result.culprits] == ["cat"]


def test_a_word_decides_as_it_does_outside(generation: dict[str, Any]) -> None:
    assert verify(step(), step(forgets=True), generation).verdict is Verdict.DIVERGED
    assert verify(step(), step(forgets=True), generation | {"mode": "sum"}).verdict is Verdict.MATCH


# --- models that take token ids


class Language(nn.Module):
    """A model of tokens, whose table of positions is smaller, and comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(32, 8)
        self.tokens = nn.Embedding(20, 8)

    def forward(self, ids: Tensor) -> Any:
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Language()

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, use_cache: bool = True) -> Any:
        return self.inner(input_ids) * self.inner(decoder_input_ids)


@pytest.mark.parametrize("model", [Language(), Named()])
def test_a_language_model_that_nobody_gave_anything_is_told_what_works(model: nn.Module) -> None:
    message = complaint(lambda: verify(model, model, inputs.normal(2, 64, seed=0)))
    assert "takes token ids" in message
    code = message.split("echo '")[1].split("' >")[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # as a user is told to
    assert verify(model, model, namespace["tokens"]()).verdict is Verdict.MATCH


def test_a_model_that_takes_neither_is_told_how_to_give_it_something() -> None:
    message = complaint(lambda: verify(nn.Linear(5, 5), nn.Linear(5, 5), inputs.normal(2, 64, seed=0)))
    assert "random pictures" in message
    assert "--input inputs.py:make" in message
    given = complaint(lambda: verify(nn.Linear(5, 5), nn.Linear(5, 5), torch.ones(2, 3)))
    assert "does not take inputs of shape (2, 3)" in given


def test_inputs_of_a_file_stay_of_tensors_alone(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(2), "use_cache": False}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="tensors only"):
        inputs.read(tmp_path / "x.pt")
