"""Dumps are read as what anybody may have written: numbers alone, sizes first, refused in a sentence."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.verifier.dumps.nets import HERE, ConvNet, inputs
from verifier import UsageError, verify
from verifier.dumps.archive import read
from verifier.dumps.names import likeness, natural, words
from verifier.dumps.verifying import is_dump
from verifier.errors import DumpError
from verifier.graph import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def npy(array: np.ndarray[Any, Any], **options: bool) -> bytes:
    data = io.BytesIO()
    np.save(data, array, **options)
    return data.getvalue()


def header(text: str) -> bytes:
    padded = text + " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


def zipped(members: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.array(3, dtype=np.int16),
        np.array([1, 65535], dtype=np.uint16),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.zeros((0, 4), np.float32),
        np.array([np.nan, np.inf, -np.inf]),
    ],
)
def test_arrays_are_read_as_numpy_reads_them(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    (found,) = read(tmp_path).tensors.values()
    assert found.shape == array.shape
    np.testing.assert_array_equal(found.numpy(), array)


def test_bfloat16_is_what_numpy_has_no_name_for(tmp_path: Path) -> None:
    tensor = torch.randn(3, 4).bfloat16()
    (tmp_path / "a.npy").write_bytes(npy(tensor.view(torch.int16).numpy().view("V2")))
    assert torch.equal(read(tmp_path).tensors["a"], tensor)


def test_names_are_paths_within_the_dump_in_the_files_order(tmp_path: Path) -> None:
    one = npy(np.ones(2))
    inner = io.BytesIO()
    np.savez(inner, y=np.ones(3), x=np.zeros(3))
    path = zipped(
        {"b/2.npy": one, "a.npy": one, "c.npz": inner.getvalue(), "notes.txt": b"no"}, tmp_path / "d.zip"
    )
    assert list(read(path).tensors) == ["b/2", "a", "c/y", "c/x"]


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "objects": (
        lambda at: zipped({"a.npy": npy(np.array([{}], dtype=object), allow_pickle=True)}, at / "a.npz"),
        "could run code",
    ),
    "text": (lambda at: zipped({"a.npy": npy(np.array(["text"]))}, at / "a.npz"), "no numbers"),
    "records": (lambda at: zipped({"a.npy": npy(np.zeros(2, "i4,f4"))}, at / "a.npz"), "no numbers"),
    "a path upwards": (lambda at: zipped({"../a.npy": npy(np.ones(2))}, at / "a.zip"), "leads out"),
    "a path from the root": (lambda at: zipped({"/a.npy": npy(np.ones(2))}, at / "a.zip"), "leads out"),
    "more than its data": (
        lambda at: zipped(
            {
                "a.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")
                + b"0" * 8
            },
            at / "a.npz",
        ),
        "cut off",
    ),
    "a negative size": (
        lambda at: zipped(
            {"a.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}") + b"0" * 8},
            at / "a.npz",
        ),
        "cut off",
    ),
    "a program for a header": (
        lambda at: zipped({"a.npy": header("__import__('os').abort()")}, at / "a.npz"),
        "no .npy file",
    ),
    "no array": (lambda at: zipped({"a.npy": b"text"}, at / "a.npz"), "no .npy file"),
    "no archive": (lambda at: written(b"PK\x03\x04rest", at / "a.npz"), "damaged"),
    "nothing": (lambda at: zipped({"a.txt": b""}, at / "a.zip"), "nothing in it"),
    "no file": (lambda at: at / "none.npz", "no such file"),
    "an empty folder": (lambda at: at, "nothing in it"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_dump_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    make, says = HOSTILE[case]
    path = make(tmp_path)
    with pytest.raises(DumpError, match=says) as refused:
        verify(path, ConvNet(), inputs("convnet"))
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).count("\n") == 0
    assert refused.value.exit_code == 2


def test_any_damage_is_refused_or_read(tmp_path: Path) -> None:
    """Every archive with a byte changed or its end missing: a sentence or tensors, nothing else."""
    whole = zipped(
        {"a.npy": npy(np.arange(4.0)), "b.npy": npy(np.ones((2, 2)))}, tmp_path / "a.npz"
    ).read_bytes()
    for at in range(0, len(whole), 3):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]):
            (tmp_path / "a.npz").write_bytes(data)
            try:
                assert read(tmp_path / "a.npz").tensors
            except DumpError as error:
                assert "cannot be" in str(error)  # noqa: PT017


def test_sizes_are_summed_before_anything_is_read(tmp_path: Path) -> None:
    path = zipped({"a.npy": npy(np.zeros(1000)), "b.npy": npy(np.zeros(1000))}, tmp_path / "a.npz")
    assert path.stat().st_size < 2000  # zeros take little room
    assert len(read(path, largest=20_000).tensors) == 2
    with pytest.raises(DumpError, match="take more than 12000 bytes"):
        read(path, largest=12_000)
    (tmp_path / "folder").mkdir()
    for name in "ab":
        np.save(tmp_path / "folder" / f"{name}.npy", np.zeros(1000))
    with pytest.raises(DumpError, match="take more than 12000 bytes"):
        read(tmp_path / "folder", largest=12_000)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.ones(2))
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "a.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(DumpError, match="out of the folder"):
        read(tmp_path / "dump")


def test_safetensors_that_are_no_certificate_are_a_dump(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert is_dump(tmp_path / "a.safetensors")
    said = json.dumps({"__metadata__": {"certificate": "{}"}}).encode()
    (tmp_path / "c.safetensors").write_bytes(len(said).to_bytes(8, "little") + said)
    assert not is_dump(str(tmp_path / "c.safetensors"))
    assert not is_dump("net.py:build")
    assert not is_dump(torch.nn.Identity())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"probe": True}, "live baseline"),
        ({"keep_float_budget": "1%"}, "live baseline"),
        ({"granularity": "block"}, "live baseline"),
        ({"weights": "imagenet"}, "as it is"),
        ({"parameter_map": {"head.weight": "kernel"}}, "live baseline"),
        ({"cells": ("cpu/float16",)}, "of float32"),
        ({"inputs": None}, "--input FILE"),
    ],
)
def test_what_a_dump_cannot_give_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        verify(HERE / "convnet.npz", ConvNet(), options.pop("inputs", inputs("convnet")), **options)


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["conv_10", "conv_2", "bn"], key=natural) == ["bn", "conv_2", "conv_10"]


@pytest.mark.parametrize(
    ("name", "op", "alike"),
    [
        ("BatchNorm_0/__call__", "batch_norm", True),
        ("Conv_3", "conv2d", True),
        ("dense_1", "linear", True),
        ("max_pooling2d", "max_pool2d", True),
        ("Conv_3", "linear", False),
        ("17", "linear", False),
    ],
)
def test_names_of_frameworks_resemble_operators(name: str, op: str, alike: bool) -> None:
    site = Site(0, "layer.one", op, "layer", 0, (1,), "float32")
    assert (likeness(name, site) > 0.5) == alike


def test_words_are_told_apart_by_case_and_signs() -> None:
    assert words("intermediates/MultiHeadAttention_0/q_proj") == {"multi", "head", "attention", "q", "linear"}
