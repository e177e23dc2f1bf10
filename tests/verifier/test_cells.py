"""Cells: their names, what they cast to, and which this machine has."""

from __future__ import annotations

import pytest
import torch

from verifier.cells import Cell, Request, missing_here, product
from verifier.environment import tf32
from verifier.errors import DeviceError, UsageError


@pytest.mark.parametrize(
    "name",
    [
        "cpu/float32",
        "cuda/tf32",
        "cuda:1/bfloat16/channels_last",
        "cuda/float16/autocast",
        "cpu/bfloat16/channels_last/autocast",
    ],
)
def test_a_name_is_read_and_written_alike(name: str) -> None:
    assert Cell.parse(name).name == name


def test_the_order_of_settings_and_the_plain_format_do_not_matter() -> None:
    assert Cell.parse("cpu/float16/autocast/channels_last") == Cell.parse(
        "cpu/float16/channels_last/autocast"
    )
    assert Cell.parse("cpu/float32/contiguous") == Cell.parse("cpu/float32")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("float32", "DEVICE/DTYPE"),
        ("cpu/flaot32", "did you mean 'float32'"),
        ("cpu/float32/nhwc", "unknown setting 'nhwc'"),
        ("cpu/float32/autocast", "autocast lowers to"),
        ("cpu/tf32/autocast", "autocast lowers to"),
        ("cpu/bfloat16/autocast/autocast", "twice"),
        ("cpu/bfloat16/contiguous/channels_last", "twice"),
    ],
)
def test_what_is_no_cell_is_refused_with_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Cell.parse(name)


def test_roundoffs_are_those_of_the_arithmetic() -> None:
    roundoff = {
        name: Cell("cpu", name).unit_roundoff for name in ("float64", "float32", "bfloat16", "float16")
    }
    assert roundoff == {"float64": 2**-53, "float32": 2**-24, "bfloat16": 2**-8, "float16": 2**-11}
    assert Cell("cuda", "tf32").unit_roundoff == 2**-11
    assert Cell("cuda", "tf32").torch_dtype is torch.float32
    assert Cell("cpu", "float16", autocast=True).torch_dtype is torch.float32
    assert Cell("cpu", "float16", autocast=True).unit_roundoff == 2**-11


def test_a_product_has_every_combination_once_and_autocast_only_for_halves() -> None:
    found = product(["cpu"], ["float32", "bfloat16"], ["contiguous", "channels_last"], [False, True])
    assert [request.cell.name for request in found] == [
        "cpu/float32",
        "cpu/float32/channels_last",
        "cpu/bfloat16",
        "cpu/bfloat16/autocast",
        "cpu/bfloat16/channels_last",
        "cpu/bfloat16/channels_last/autocast",
    ]
    assert all(request.named for request in found)


def test_cells_from_all_are_not_named_unless_they_were_named_as_well() -> None:
    found = {request.cell.dtype: request.named for request in product(["cpu"], ["all", "float16"])}
    assert found == {"float64": False, "float32": False, "tf32": False, "bfloat16": False, "float16": True}


def test_tf32_on_the_cpu_is_not_meant_where_another_device_was_named() -> None:
    named = {request.cell.name: request.named for request in product(["cpu", "cuda"], ["tf32"])}
    assert named == {"cpu/tf32": False, "cuda/tf32": True}
    assert product(["cpu"], ["tf32"]) == [Request(Cell("cpu", "tf32"), named=True)]


def test_autocast_without_a_half_precision_leaves_no_cell() -> None:
    with pytest.raises(UsageError, match="no cell is left"):
        product(["cpu"], ["float32"], autocast=[True])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_cells_are_told_and_only_if_all_are_missing_refused() -> None:
    requests = [
        Request(Cell("cpu", "float32")),
        Request(Cell("cuda", "float32")),
        Request(Cell("cpu", "tf32")),
    ]
    assert list(missing_here(requests)) == [Cell("cuda", "float32"), Cell("cpu", "tf32")]
    with pytest.raises(DeviceError, match="no CUDA device"):
        missing_here(requests[1:])


def test_tf32_is_allowed_inside_its_cells_only_and_put_back() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    with tf32(allowed=True):
        assert allowed() == (True, True)
        with tf32(allowed=False):
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    assert allowed() == before
