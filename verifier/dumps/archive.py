"""Dumped tensors read from files, which anybody may have written: a folder, an archive, or one file of arrays."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from verifier.border.error_texts import first_line
from verifier.errors import DumpError
from verifier.inputs.given import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

LARGEST = 16 << 30  # bytes of all tensors together
MOST = 100_000  # tensors
ENDINGS = (".npy", ".npz", ".zip", ".safetensors")
_ARRAYS = (".npy", ".npz", ".safetensors")
_KINDS = "biufc"  # of NumPy's dtypes, those that are numbers
_WIDER = {"u2": "i4", "u4": "i8"}  # few operators of torch know these
_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BFLOAT16 = np.dtype("V2")  # as which NumPy writes what it has no name for


@dataclass(frozen=True)
class Dump:
    """Tensors by name, in the order in which the files have them, and where they come from.

    A name is the path within the folder or archive, without the ending.
    """

    source: str
    tensors: Mapping[str, Tensor]


def read(path: Path, largest: int = LARGEST) -> Dump:
    """The tensors of a folder, a `.zip`, or a `.npy`, `.npz` or `.safetensors` file. Nothing in it can run.

    Args:
        path: Where they are. Of a folder, files of other kinds are left alone.
        largest: Bytes that all tensors may take together. Sizes are summed from the headers before any is read.

    Raises:
        DumpError: There is nothing, something is damaged, or it holds anything but numbers.
    """
    found: dict[str, Tensor] = {}
    reader = _Reader(path, largest)
    try:
        for name, tensor in reader.all():
            if name in found:
                reader.refuse(f"it holds two tensors of the name {name}")
            found[name] = tensor
            if len(found) > MOST:
                reader.refuse(f"it holds more than {MOST} tensors")
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    if not found:
        reader.refuse(f"there is nothing in it that ends in {', '.join(_ARRAYS)}")
    return Dump(str(path), found)


class _Reader:
    def __init__(self, path: Path, largest: int) -> None:
        self.path = path
        self.largest = largest
        self.taken = 0

    def refuse(self, why: str, name: str = "") -> NoReturn:
        """Say why the dump cannot be used, of all of it or of one file in it."""
        where = f"{self.path} ({name})" if name else str(self.path)
        raise DumpError(f"{where} cannot be used as dumped tensors: {why if len(why) < 200 else why[:200]}.")

    def all(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name."""
        if not self.path.is_dir():
            if not self.path.is_file():
                self.refuse("there is no such file or folder")
            with self.path.open("rb") as stream:
                yield from self._one("", self.path.suffix.lower(), stream, self.path.stat().st_size)
            return
        files = sorted(file for file in self.path.rglob("*") if file.suffix.lower() in _ARRAYS)
        top = self.path.resolve()
        for file in files:
            if not file.resolve().is_relative_to(top):
                self.refuse("it leads out of the folder", str(file.relative_to(self.path)))
        for file in files:
            name = file.relative_to(self.path).as_posix()
            if file.is_file():
                with file.open("rb") as stream:
                    yield from self._one(name, file.suffix.lower(), stream, file.stat().st_size)

    def _take(self, size: int, name: str) -> None:
        self.taken += size
        if self.taken > self.largest:
            self.refuse(f"with it the tensors take more than {self.largest} bytes", name)

    def _one(self, name: str, ending: str, stream: IO[bytes], size: int) -> Iterator[tuple[str, Tensor]]:
        if ending == ".npy":
            yield _stem(name) or self.path.stem, self._array(name, stream, size)
        elif ending == ".safetensors":
            self._take(size, name)
            yield from ((_joined(name, key), found) for key, found in self._safetensors(name, stream.read()))
        elif ending in (".npz", ".zip"):
            yield from self._archive(name, stream)
        else:
            self.refuse(f"its name ends in none of {', '.join(ENDINGS)}", name)

    def _archive(self, name: str, stream: IO[bytes]) -> Iterator[tuple[str, Tensor]]:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = [each for each in archive.infolist() if not each.is_dir()]
                if len(members) > MOST:
                    self.refuse(f"it holds more than {MOST} files", name)
                for each in members:
                    self._check(each, name)
                kept = [m for m in members if PurePosixPath(m.filename).suffix.lower() in _ARRAYS]
                if self.taken + sum(each.file_size for each in kept) > self.largest:
                    self.refuse(f"its tensors take more than {self.largest} bytes", name)
                for each in kept:
                    inner = PurePosixPath(each.filename)
                    with archive.open(each) as member:
                        if inner.suffix.lower() == ".npz":  # which must be read from any place
                            self._take(each.file_size, each.filename)
                            member_stream: IO[bytes] = io.BytesIO(member.read(each.file_size))
                            self.taken -= each.file_size
                        else:
                            member_stream = member
                        yield from self._one(
                            _joined(name, each.filename), inner.suffix.lower(), member_stream, each.file_size
                        )
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error) as error:
            self.refuse(f"it is damaged ({reason(error)})", name)

    def _check(self, member: zipfile.ZipInfo, name: str) -> None:
        parts = PurePosixPath(member.filename).parts
        if (
            member.filename.startswith("/")
            or ".." in parts
            or "\\" in member.filename
            or ":" in parts[0][1:2]
        ):
            self.refuse(f"its member {member.filename!r} leads out of it", name)
        if member.flag_bits & 1:
            self.refuse(f"its member {member.filename!r} is encrypted", name)

    def _array(self, name: str, stream: IO[bytes], size: int) -> Tensor:
        """One array, once its header has been found to say what is there."""
        try:
            header = io.BytesIO(stream.read(min(size, 1 << 16)))
            read_header = _VERSIONS.get(np.lib.format.read_magic(header))
            if read_header is None:
                self.refuse("its version is none that numbers need", name)
            shape, fortran, dtype = read_header(header)
        except (ValueError, EOFError, SyntaxError, RecursionError, MemoryError) as error:
            self.refuse(f"it is no .npy file ({reason(error)})", name)
        if dtype.hasobject:
            self.refuse("it holds Python objects, and loading these could run code", name)
        if dtype.kind not in _KINDS and dtype != _BFLOAT16:
            self.refuse(f"it holds {dtype} values, which are no numbers", name)
        held = math.prod(shape) * dtype.itemsize
        if any(each < 0 for each in shape) or held != size - header.tell():
            self.refuse("it is cut off, or longer than its header says", name)
        self._take(held, name)
        data = header.read() + stream.read(held)
        if len(data) != held:
            self.refuse("it is cut off", name)
        array = np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")
        return self._tensor(name, array)

    def _tensor(self, name: str, array: np.ndarray[Any, Any]) -> Tensor:
        if array.dtype == _BFLOAT16:
            return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
        code = array.dtype.str[1:]
        plain = array.astype(_WIDER.get(code, array.dtype.newbyteorder("=")), copy=False)
        try:
            return torch.from_numpy(np.ascontiguousarray(plain).reshape(array.shape))
        except TypeError:
            self.refuse(f"it holds {array.dtype} values, which torch has no type for", name)

    def _safetensors(self, name: str, data: bytes) -> Iterator[tuple[str, Tensor]]:
        from safetensors.torch import load  # noqa: PLC0415 - only this format needs it

        try:
            yield from load(data).items()
        except Exception as error:
            self.refuse(f"it cannot be read as safetensors ({reason(error)})", name)


def _stem(name: str) -> str:
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _joined(name: str, key: str) -> str:
    return f"{_stem(name)}/{key}" if name else key
