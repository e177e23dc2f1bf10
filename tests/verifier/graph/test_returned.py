from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from verifier.graph.returned import Returned

Y = torch.arange(6.0).reshape(2, 3)


class Pair(NamedTuple):
    scores: Any
    label: Any


@dataclass
class Output:
    scores: Any
    label: Any = None


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (Y, ("",)),
        ((Y, Y), ("0", "1")),
        ([Y, (Y, Y)], ("0", "1.0", "1.1")),
        ({"a": Y, "b": [Y]}, ("a", "b.0")),
        (OrderedDict(b=Y, a=Y), ("b", "a")),
        (Pair(Y, Y), ("scores", "label")),
        (Output(Y, {"x": Y}), ("scores", "label.x")),
        (None, ()),
        ("cat", ()),
    ],
)
def test_every_tensor_has_the_place_where_it_stands(structure: Any, names: tuple[str, ...]) -> None:
    assert Returned.of(structure).names == names


@pytest.mark.parametrize(
    ("leaf", "kind", "value"),
    [
        (3, "int", 3.0),
        (True, "bool", 1.0),
        (0.25, "float", 0.25),
        (1 + 2j, "complex", 1 + 2j),
        (list(range(65)), "list", list(range(65))),
        ([[0.5] * 40] * 2, "list", [[0.5] * 40] * 2),
        (2**60 + 1, "int", 2**60 + 1),
        (np.float32(0.5), "an array of float32", 0.5),
        (np.arange(3), "an array of int64", [0, 1, 2]),
        (np.arange(3, dtype=">i4"), "an array of >i4", [0, 1, 2]),
        (Y.to_sparse(), "sparse coo float32", Y.tolist()),
        (Y.half(), "float16", Y.tolist()),
    ],
)
def test_numbers_in_any_form_can_be_compared(leaf: Any, kind: str, value: Any) -> None:
    found = Returned.of(leaf)
    assert found.kinds == (kind,)
    (tensor,) = found.values()
    assert tensor.layout is torch.strided
    assert tensor.tolist() == value


@pytest.mark.parametrize(
    "leaf", ["cat", b"cat", None, torch.float32, torch.Size([2]), Colour.RED, slice(1, 2), int, 10**400]
)
def test_what_is_no_number_is_told_apart_by_its_words(leaf: Any) -> None:
    found = Returned.of((Y, leaf))
    assert (found.names, dict(found.words), dict(found.unread)) == (("0",), {"1": repr(leaf)}, {})


@pytest.mark.parametrize("leaf", [object(), len, (k for k in "ab"), np.array(["a"])])
def test_what_cannot_be_told_apart_is_named_by_its_type(leaf: Any) -> None:
    assert dict(Returned.of({"y": Y, "z": leaf}).unread) == {"z": type(leaf).__name__}


def test_short_lists_are_taken_apart_so_that_no_number_hides_another() -> None:
    assert Returned.of([[1, 2], [3]]).names == ("0.0", "0.1", "1.0")
    assert Returned.of((1e9, 1e-9)).names == ("0", "1")
    assert Returned.of([]).names == ()


def test_values_come_in_the_order_that_is_asked_for() -> None:
    found = Returned.of({"a": Y, "b": Y * 2})
    assert [tensor[0, 1].item() for tensor in found.values((1, 0))] == [2.0, 1.0]


def test_keys_are_names_of_what_can_be_compared() -> None:
    found = Returned.of({"logits": Y, "cache": None, "label": "cat", "other": object(), "states": (Y, Y)})
    assert sorted(found.keys()) == ["label", "logits", "states.0", "states.1"]
    assert Returned.of((Y, "cat")).keys() == Returned.of(Y).keys() == ()
    assert Returned.of({7: Y, 9: Y}).keys() == ("7", "9")
    assert Returned.of({torch.tensor(1.0): Y}).keys() == ("1.0",)
    assert Returned.of({object(): Y}).keys() == ("object #0",)


structures = st.recursive(
    st.sampled_from([1, 0.5, "cat", None]) | st.just("tensor"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(structures)
def test_nothing_that_is_returned_is_lost(structure: Any) -> None:
    def count(part: Any) -> int:
        if isinstance(part, dict):
            return sum(map(count, part.values()))
        if isinstance(part, list):
            return sum(map(count, part))
        return 1

    found = Returned.of(structure)
    numbers = sum(tensor.numel() for tensor in found.values())
    assert numbers + len(found.words) + len(found.unread) == count(structure)


def test_nested_tensors_lie_in_one_row() -> None:
    nested = torch.nested.nested_tensor([Y[0], Y[1, :2]], layout=torch.jagged)
    found: Tensor = Returned.of(nested).values()[0]
    assert found.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
