"""Tensors from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils import _pytree as pytree

from verifier.errors import InputError
from verifier.inputs.given import Inputs, as_arguments, described, leaves, reason

if TYPE_CHECKING:
    from collections.abc import Callable


def file(path: str | Path) -> Inputs:
    """The tensors in a `.npy`, `.pt`, `.pth` or `.safetensors` file.

    One tensor is the first positional argument. In a `.pt` file a tuple or list holds the positional
    arguments and a dict the keyword arguments, each a tensor or a container of tensors; several tensors in a
    `.safetensors` file are keyword arguments by their names. Nothing in a file can run: pickled objects are
    refused.

    Raises:
        InputError: The file is missing, of another kind, corrupt, or holds anything but tensors.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(
            f"{path} has none of the endings {', '.join(ENDINGS)} that input files can have, nor is it a "
            "file.py:function that makes inputs"
        )
    if not path.is_file():
        raise InputError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}")
    args, kwargs = as_arguments(read(path), str(path))
    for name, leaf in leaves(args, kwargs):
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"{path} holds a {type(leaf).__name__} {name}; an input file may hold tensors only"
            )
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    return described(args, kwargs, f"tensors from {path.name}", (path.name,))


_NUMPYS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")


def _read_npy(path: Path) -> torch.Tensor:
    try:
        with path.open("rb") as stream:
            begins = stream.read(6)
            stream.seek(0)
            array = np.load(stream, allow_pickle=False) if begins.startswith(_NUMPYS) else None
    except Exception as error:
        why = reason(error)
        if "allow_pickle" in why:  # which nobody should be told to do
            why = "it holds Python objects, which are refused because loading them could run code"
        raise InputError(f"{path} cannot be read as a NumPy array of numbers: {why}") from error
    if array is None:
        raise InputError(f"{path} is no .npy file, whatever its name says; write one with numpy.save")
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays, not one; save the one that is the input")
    try:
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    except TypeError as error:
        raise InputError(f"{path} holds {array.dtype} values, which torch has no type for") from error


def _read_pt(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: it is damaged, or it holds more than tensors, which is refused because "
            "loading it could run code. Save a tensor, a tuple or a dict of tensors with torch.save."
        ) from error


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file  # noqa: PLC0415 - only this format needs it

    try:
        content = load_file(path)
    except Exception as error:
        raise InputError(f"{path} cannot be read as safetensors: {reason(error)}") from error
    return next(iter(content.values())) if len(content) == 1 else content


_READERS: dict[str, Callable[[Path], object]] = {
    ".npy": _read_npy,
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".safetensors": _read_safetensors,
}
ENDINGS = tuple(_READERS)
"""Of files that can hold inputs."""
