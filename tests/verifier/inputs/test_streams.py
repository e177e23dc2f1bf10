from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from verifier.errors import DataError
from verifier.inputs import Stream, data, images, streamed_images
from verifier.inputs.samples import batch_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from verifier.inputs import Inputs

FUNCTIONS = """
import random

import numpy
import torch
from torch.utils.data import DataLoader, TensorDataset

numbers = torch.arange(60.0).reshape(20, 3)
passes = []


def drawn():
    for _ in range(5):
        yield torch.randn(2, 3) + random.random() + numpy.random.rand()


def shuffled():
    return DataLoader(numbers, batch_size=8, shuffle=True)


def pairs():
    return [(torch.ones(2, 3), torch.zeros(2, 4))] * 2


def dicts():
    return iter([{"x": torch.ones(2, 3)}])


def worse():
    passes.append(1)
    yield torch.full((2, 3), float(len(passes)))


def failing():
    yield torch.ones(2, 3)
    raise KeyError("gone")


def empty():
    return []


def one():
    return torch.ones(2, 3)


def samples():
    return TensorDataset(numbers)


once = iter([torch.ones(2, 3), torch.ones(2, 3)])
lone = iter([torch.ones(2, 3), torch.zeros(2, 3)])
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    file = tmp_path / "batches.py"
    file.write_text(FUNCTIONS)
    return str(file)


def tensors(parts: Sequence[Inputs]) -> list[torch.Tensor]:
    return [part.args[0] for part in parts]


def digest(stream: Stream) -> str:
    assert stream.seen.tally is not None
    return stream.seen.tally.digest


def twice(stream: Stream) -> None:
    for _ in range(2):
        list(stream)


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_what_a_function_draws_is_the_same_in_every_pass_whatever_is_drawn_meanwhile(functions: str) -> None:
    stream = data(f"{functions}:drawn", 8, seed=3)
    state = torch.get_rng_state()
    first = []
    for part in stream:
        torch.randn(100)
        first.append(part.args[0])
    torch.set_rng_state(state)
    assert len(first) == 5
    assert torch.equal(torch.stack(first), torch.stack(tensors(stream)))
    assert torch.equal(stream.head.args[0], first[0])
    assert torch.equal(torch.get_rng_state(), state)
    others = tensors(data(f"{functions}:drawn", 8, seed=4))
    assert not torch.equal(first[0], others[0])


def test_a_shuffling_loader_gives_one_order(functions: str) -> None:
    stream = data(f"{functions}:shuffled", 4)
    first, second = torch.cat(tensors(stream)), torch.cat(tensors(stream))
    assert torch.equal(first, second)
    assert not torch.equal(first, first.sort(0).values)
    assert stream.seen.samples == 20
    assert "20 samples in batches of 8 x 3" in stream.info.description


def test_a_tuple_holds_positional_arguments_and_a_dict_named_ones(functions: str) -> None:
    assert len(data(f"{functions}:pairs", 8).head.args) == 2
    assert set(data(f"{functions}:dicts", 8).head.kwargs) == {"x"}


@pytest.mark.parametrize("name", ["worse", "once"])
def test_samples_that_are_others_in_the_second_pass_are_refused(functions: str, name: str) -> None:
    stream = data(f"{functions}:{name}", 8)  # reads the first batch
    with pytest.raises(DataError, match="other samples in every pass"):
        twice(stream)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failing", "raised while it gave its batches: KeyError"),
        ("empty", "holds no samples"),
        ("one", "gives a Tensor, where an iterable of batches is needed"),
        ("samples", "put it into a DataLoader"),
    ],
)
def test_what_gives_no_batches_is_told(functions: str, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(data(f"{functions}:{name}", 8))


def test_a_stream_is_known_by_its_samples_and_not_by_its_batches(tmp_path: Path) -> None:
    rows = [[k, k + 1, 5] for k in range(30)]
    path = lines(tmp_path / "tokens.jsonl", rows)
    digests = set()
    for size in (1, 7, 30):
        stream = data(path, size)
        list(stream)
        list(stream.in_batches(3))
        digests.add(digest(stream))
    assert len(digests) == 1
    other = data(lines(tmp_path / "other.jsonl", [rows[1], rows[0], *rows[2:]]), 7)
    list(other)
    assert digest(other) not in digests
    assert other.seen.tally is not None
    (exercised,) = other.seen.tally.ranges
    assert (exercised.low, exercised.high, exercised.dtype) == (0, 30, "int64")


def test_smaller_batches_hold_the_same_samples(tmp_path: Path) -> None:
    stream = data(lines(tmp_path / "tokens.jsonl", [[k, 0] for k in range(10)]), 6)
    halved = stream.in_batches(4)
    assert [batch_size(part) for part in halved] == [4, 2, 4]
    assert torch.equal(torch.cat(tensors(halved)), torch.cat(tensors(stream)))
    assert batch_size(halved[0]) == 4
    assert len(halved) == len(stream) == 2


def test_samples_are_picked_by_number_across_batches(tmp_path: Path) -> None:
    rows = [{"input_ids": [k, 1], "mask": [1, 0], "id": f"text {k}"} for k in range(10)]
    stream = data(lines(tmp_path / "tokens.jsonl", rows), 4)
    [few] = stream.alike([9, 0, 5], [9])
    assert few.kwargs["input_ids"].tolist() == [[9, 1], [0, 1], [5, 1]]
    assert few.kwargs.keys() == {"input_ids", "mask"}
    assert stream.name(9) == "text 9"


def test_samples_of_several_lengths_are_picked_by_length(tmp_path: Path) -> None:
    rows = [[k] * (2 + k // 3) for k in range(9)]
    stream = data(lines(tmp_path / "tokens.jsonl", rows), 3)
    found = [few.args[0].tolist() for few in stream.alike([2, 0, 8, 4, 6], [8, 4])]
    assert found == [[[8] * 4, [6] * 4], [[4] * 3]]


def test_only_the_first_batch_is_held(tmp_path: Path) -> None:
    stream = data(lines(tmp_path / "tokens.jsonl", [[k, 0] for k in range(10)]), 4)
    with pytest.raises(IndexError):
        stream[1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1, 2, 3], r"tokens.jsonl, line 4 is of shape \(3,\) and tokens.jsonl, line 1 of \(2,\).*pad"),
        ({"input_ids": "words"}, "tokens.jsonl, line 4 cannot be read: input_ids holds no numbers"),
    ],
)
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, row: object, said: str) -> None:
    path = lines(tmp_path / "tokens.jsonl", [*[[k, 0] for k in range(3)], row])
    with pytest.raises(DataError, match=said):
        list(data(path, 4))


def test_rows_of_parquet_are_those_of_json(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"input_ids": [k, 1], "id": f"text {k}"} for k in range(10)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "tokens.parquet", row_group_size=3)
    streams = [data(tmp_path / "tokens.parquet", 4), data(lines(tmp_path / "tokens.jsonl", rows), 4)]
    for stream in streams:
        list(stream)
    assert digest(streams[0]) == digest(streams[1])
    assert streams[0].name(7) == streams[1].name(7) == "text 7"


def test_a_file_that_is_none_of_these_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a file of samples"):
        data("tokens.csv", 4)
    with pytest.raises(DataError, match="No such file"):
        data(tmp_path / "none.jsonl", 4)


def pictures(directory: Path, count: int) -> Path:
    from PIL import Image

    directory.mkdir()
    drawn = torch.Generator().manual_seed(0)
    for k in range(count):
        pixels = torch.randint(256, (40, 48, 3), generator=drawn, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(directory / f"{k:03}.png")
    return directory


def test_photographs_decoded_in_workers_are_those_that_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script that asked for them is not run once more in each worker."""
    (tmp_path / "script.py").write_text("raise RuntimeError('run once more')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    directory = pictures(tmp_path / "pictures", 70)
    stream = streamed_images(directory, 12, 32)
    assert isinstance(stream, Stream)
    assert torch.equal(torch.cat(tensors(stream)), images(directory, None, 32).args[0])
    assert (stream.seen.samples, len(stream), stream.name(69)) == (70, 6, "069.png")


def test_few_photographs_are_held(tmp_path: Path) -> None:
    assert streamed_images(pictures(tmp_path / "pictures", 9), 2, 32) is None


def test_a_photograph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    directory = pictures(tmp_path / "pictures", 65)
    (directory / "044.png").write_bytes(b"nothing")
    stream = streamed_images(directory, 20, 32)
    assert stream is not None
    with pytest.raises(DataError, match=r"044.png.*not an image"):
        list(stream)


def test_a_candidate_that_prepares_photographs_otherwise_is_given_its_own(tmp_path: Path) -> None:
    directory = pictures(tmp_path / "pictures", 65)
    (tmp_path / "prepare.py").write_text(
        "from torchvision.transforms import v2\nimport torch\n"
        "transforms = [v2.ToImage(), v2.Resize(36), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]\n"
    )
    spec = f"{tmp_path / 'prepare.py'}:transforms"
    stream, held = streamed_images(directory, 40, 32, spec), images(directory, None, 32, spec)
    assert stream is not None
    assert held.other is not None
    assert torch.equal(torch.cat([part.other.args[0] for part in stream if part.other]), held.other.args[0])


OTHERWISE = """
import torch
from PIL import ImageOps
from torchvision.transforms import v2


def mirrored(picture):
    return ImageOps.mirror(picture) if picture.width > 50 else picture


transforms = [
    mirrored,
    v2.Resize(37),
    v2.CenterCrop(32),
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
]
"""


@pytest.mark.parametrize("odd", [True, False])
def test_one_photograph_far_back_that_is_prepared_otherwise_is_found(tmp_path: Path, odd: bool) -> None:
    from PIL import Image

    directory = pictures(tmp_path / "pictures", 65)
    if odd:
        with Image.open(directory / "044.png") as opened:
            opened.resize((60, 40)).save(directory / "044.png")
    (tmp_path / "prepare.py").write_text(OTHERWISE)
    spec = f"{tmp_path / 'prepare.py'}:transforms"
    stream = streamed_images(directory, 20, 32, spec)
    assert stream is not None
    found = stream.head.preprocessing
    assert found is not None
    assert found.files == tuple(f"{k:03}.png" for k in (*range(20), *([44] if odd else [])))
    assert "all 65 photographs were compared" in found.notes[-1]
    if not odd:
        assert (found.status, stream.head.other) == ("rounding", None)
        return
    assert (found.status, found.applied) == ("differs", True)
    apart = [
        20 * k + number
        for k, part in enumerate(stream)
        for number, (one, two) in enumerate(
            zip(part.args[0], part.other.args[0] if part.other else [], strict=True)
        )
        if not torch.allclose(one, two, atol=1e-5)
    ]
    assert apart == [44]
    assert stream.head.info.shapes == ((20, 3, 32, 32),)


def test_a_line_that_is_not_even_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text("[1, 2]\n[1,\n")
    with pytest.raises(DataError, match=r"tokens.jsonl, line 2 cannot be read"):
        list(data(path, 4))


def test_an_iterator_that_can_be_read_once_alone_is_refused_in_the_first_pass(functions: str) -> None:
    stream = data(f"{functions}:lone", 8)
    with pytest.raises(DataError, match="other samples in every pass"):
        list(stream)
