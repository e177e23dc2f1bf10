"""Assemblies: what they say as text, when they fit, and the tensors they make, against numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from verifier.align import Assembly
from verifier.align.assembly import Piece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[np.float64]"]
Shape = tuple[int, ...]

# Names may end in what the text form uses to say more.
NAMES = ("weight", "a.b.weight", "layers.0.T", "T", ".T", "rows[0:3]", "rows[0:3].T")
SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def piece_of(draw: st.DrawFn, names: Sequence[str]) -> Piece:
    """Any piece of any of these tensors."""
    name, transposed = draw(st.sampled_from(names)), draw(st.booleans())
    if draw(st.booleans()):
        turned = draw(st.booleans())
        return Piece(name, draw(st.integers(0, 5)), draw(st.integers(0, 5)), transposed, turned)
    return Piece(name, transposed=transposed)


def arrays_of(shapes: Mapping[str, Shape]) -> Arrays:
    """Arrays in which no two elements are equal."""
    made: Arrays = {}
    start = 1
    for name, shape in shapes.items():
        count = math.prod(shape)
        made[name] = np.arange(start, start + count, dtype=np.float64).reshape(shape)
        start += count
    return made


def tensors_of(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def expected(assembly: Assembly, arrays: Arrays, shape: Shape) -> NDArray[np.float64]:
    """What numpy makes of the assembly; ValueError or IndexError where it cannot."""
    parts: list[Any] = []
    for name, start, stop, transposed, turned, *_ in assembly.pieces:
        array = arrays[name]
        if (transposed or turned) and array.ndim != 2:
            raise ValueError("only a matrix has a transpose")
        if transposed:
            array = array.T
        array = array if start is None else array[start:stop,]
        parts.append(array.T if turned else array)
    whole: NDArray[np.float64] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if assembly.turned:
        if whole.ndim != 2 or whole.T.shape != shape:
            raise ValueError("what is turned at last is not reshaped")
        return whole.T
    if assembly.whole is None and (
        not whole.ndim or all(math.prod(shape[:k]) != len(whole) for k in range(1, len(shape) + 1))
    ):
        raise ValueError("rows that were cut, turned or put together stay rows, if need be in groups")
    return whole.reshape(shape)


def possible(assembly: Assembly, arrays: Arrays) -> list[Shape]:
    """Shapes that are likely to be right, so that most draws are: as many rows as the pieces have, in any shape."""
    sizes = [
        arrays[piece.name].shape[::-1] if piece.transposed else arrays[piece.name].shape
        for piece in assembly.pieces
    ]
    rows = sum(
        shape[0] if piece.start is None else len(range(shape[0])[piece.start : piece.stop])
        for piece, shape in zip(assembly.pieces, sizes, strict=True)
        if shape
    )
    rest = sizes[0][1:]
    return [(rows, *rest), (rows, math.prod(rest)), (*rest, rows), (rows * math.prod(rest),)]


@given(st.lists(piece_of(NAMES), min_size=1, max_size=4))
def test_a_recipe_reads_what_it_writes(pieces: list[Piece]) -> None:
    assembly = Assembly(tuple(pieces))
    # Where two names differ by `.T` only, text cannot say both; names are taken literally then.
    known = {piece.name for piece in pieces}
    assume(all(piece == Piece(piece.name) or str(piece) not in known for piece in pieces))
    assume(all(f"{piece.name}.T" not in known for piece in pieces if piece.transposed))
    assert Assembly.parsed(assembly.text, known) == assembly


@given(piece_of(NAMES))
def test_one_piece_is_one_string_and_several_are_a_list(piece: Piece) -> None:
    assert Assembly((piece,)).text == str(piece)
    assert Assembly((piece, piece)).text == (str(piece), str(piece))
    assert Assembly.parsed([str(piece)], {piece.name}) == Assembly.parsed(str(piece), {piece.name})


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("conv.weight", Piece("conv.weight")),
        ("attn.in_proj_weight[0:768]", Piece("attn.in_proj_weight", 0, 768)),
        ("fc.weight.T", Piece("fc.weight", transposed=True)),
        ("c_attn.weight.T[4:8]", Piece("c_attn.weight", 4, 8, transposed=True)),
        ("gates.weight[4:8].T", Piece("gates.weight", 4, 8, turned=True)),
        ("0 * gates.bias[4:8]", Piece("gates.bias", 4, 8, none=True)),
        ("rnn.b_ih[0:4] + rnn.b_hh[0:4]", Piece("rnn.b_ih", 0, 4, plus=Piece("rnn.b_hh", 0, 4))),
    ],
)
def test_text_says_rows_and_transposes(text: str, piece: Piece) -> None:
    assert Piece.parsed(text) == piece
    assert str(piece) == text


@pytest.mark.parametrize("name", ["tables.T", "tables[0:3]", "tables[0:3].T"])
def test_a_known_name_is_taken_literally(name: str) -> None:
    assert Piece.parsed(name, {name}) == Piece(name)
    assert Piece.parsed(name, {"tables"}).name != name
    assert Piece.parsed(f"{name}.T", {name}) == Piece(name, transposed=True)
    assert Piece.parsed(f"{name}[1:2]", {name}) == Piece(name, 1, 2)


def test_names_are_each_said_once_in_order() -> None:
    assert Assembly.parsed(["b[0:1]", "a", "b[1:2]"]).names == ("b", "a")


@pytest.mark.parametrize(
    ("text", "whole"), [("a", "a"), ("a[0:2]", None), ("a.T", None), (("a", "b"), None), (("a", "a"), None)]
)
def test_only_one_uncut_unturned_tensor_is_whole(text: str | tuple[str, ...], whole: str | None) -> None:
    assert Assembly.parsed(text).whole == whole


@given(
    shapes=st.fixed_dictionaries(dict.fromkeys(("x", "y"), SHAPES)),
    pieces=st.lists(piece_of(("x", "y")), min_size=1, max_size=3),
    data=st.data(),
)
def test_what_fits_is_what_numpy_can_make_and_becomes_the_same(
    shapes: dict[str, Shape], pieces: list[Piece], data: st.DataObject
) -> None:
    assembly = Assembly(tuple(pieces), turned=data.draw(st.booleans()))
    arrays = arrays_of(shapes)
    shape = data.draw(st.one_of(SHAPES, st.sampled_from(possible(assembly, arrays))))
    try:
        made = expected(assembly, arrays, shape)
    except (ValueError, IndexError):
        assert not assembly.fits(shapes, shape)
        return
    assert assembly.fits(shapes, shape)
    ours = assembly.make(tensors_of(arrays), shape)
    assert tuple(ours.shape) == shape
    np.testing.assert_array_equal(ours.numpy(), made)


def test_a_recipe_of_an_unknown_tensor_does_not_fit() -> None:
    assert not Assembly.of("w").fits({"v": (2, 3)}, (2, 3))


@pytest.mark.parametrize(
    ("text", "shape", "make"),
    [
        ("w", (6, 4), lambda w, v: w),
        ("w", (6, 2, 2, 1), lambda w, v: w.reshape(6, 2, 2, 1)),
        ("w.T", (4, 6), lambda w, v: w.T),
        ("w[2:4]", (2, 4), lambda w, v: w[2:4]),
        ("w.T[1:3]", (2, 6), lambda w, v: w.T[1:3]),
        (("w", "v"), (8, 4), lambda w, v: np.concatenate([w, v])),
        (("v", "w[0:2]"), (4, 4), lambda w, v: np.concatenate([v, w[0:2]])),
        (("w[4:6]", "w[2:4]", "w[0:2]"), (6, 4), lambda w, v: np.concatenate([w[4:6], w[2:4], w[0:2]])),
    ],
)
def test_tensors_are_made_as_the_text_says(text: str | tuple[str, ...], shape: Shape, make: Any) -> None:
    shapes = {"w": (6, 4), "v": (2, 4)}
    arrays = arrays_of(shapes)
    assembly = Assembly.parsed(text)
    assert assembly.fits(shapes, shape)
    np.testing.assert_array_equal(assembly.make(tensors_of(arrays), shape).numpy(), make(**arrays))


def test_a_whole_tensor_of_the_same_shape_is_the_tensor_itself() -> None:
    tensors = {"w": torch.ones(2, 3)}
    assert Assembly.of("w").make(tensors, (2, 3)) is tensors["w"]


@pytest.mark.parametrize(("text", "shape"), [("w[2:4]", (2, 4)), ("w.T", (4, 6)), ("w", (6, 2, 2))])
def test_one_piece_shares_memory_with_its_tensor(text: str, shape: Shape) -> None:
    tensors = {"w": torch.zeros(6, 4)}
    made = Assembly.parsed(text).make(tensors, shape)
    made += 1
    assert tensors["w"].sum() == math.prod(shape)


@given(
    shapes=st.fixed_dictionaries(
        {"x": st.tuples(st.integers(1, 5), st.just(3)), "y": st.tuples(st.just(3), st.integers(1, 5))}
    ),
    rows=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    kernel=st.booleans(),
)
def test_unmaking_writes_back_what_was_made_and_nothing_else(
    shapes: dict[str, Shape], rows: tuple[int, int], kernel: bool
) -> None:
    assembly = Assembly((Piece("x", *rows), Piece("y", transposed=True)))
    arrays = arrays_of(shapes)
    count = len(range(shapes["x"][0])[rows[0] : rows[1]]) + shapes["y"][1]
    made = assembly.make(tensors_of(arrays), (count, 3, 1) if kernel else (count, 3))
    blank = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    assembly.unmake(made, blank)
    kept = np.zeros_like(arrays["x"])
    kept[rows[0] : rows[1]] = arrays["x"][rows[0] : rows[1]]
    np.testing.assert_array_equal(blank["x"].numpy(), kept)
    np.testing.assert_array_equal(blank["y"].numpy(), arrays["y"])


def test_rows_of_a_scalar_do_not_fit() -> None:
    assert not Assembly.parsed("scale[0:1]").fits({"scale": ()}, ())
