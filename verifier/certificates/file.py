"""Certificates on disk: safetensors, written at once, and read as what anybody may have written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

import numpy as np
import torch

from verifier.border import whole_files
from verifier.certificates.bits import HASHES
from verifier.certificates.content import CERTIFICATE_VERSION, Content, contradictions
from verifier.certificates.sketch import BUCKETS
from verifier.certificates.summary import BINS, MOMENTS
from verifier.errors import CertificateError
from verifier.records import Record, to_builtins
from verifier.records.reading import DamagedError, NewerError, UnknownError, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from verifier.certificates.content import InputRecord, RecordingRecord

C = TypeVar("C", bound=Record)
Expected: TypeAlias = "dict[str, tuple[tuple[int, ...], torch.dtype | None]]"

KEY = "certificate"
LARGEST_HEADER = 16 << 20  # bytes
LARGEST_FILE = 4 << 30  # bytes, which only tensors kept in full come near to
_NAME = re.compile(
    r"(weights|inputs)/\d{1,7}|\d{1,3}/(bits|masks|moments|histograms|sketches|(full|inputs)/\d{1,7})"
)
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "C128": torch.complex128,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
ARRAYS = {
    "bits": ((HASHES,), torch.int64),
    "masks": ((HASHES,), torch.int64),
    "moments": ((MOMENTS,), torch.float64),
    "histograms": ((BINS,), torch.int64),
    "sketches": ((BUCKETS,), torch.float64),
}
"""What a recording has a row of for each tensor: the rest of the shape, and the dtype."""


def storable(tensor: Tensor) -> bool:
    """Whether a tensor has a dtype that the file can hold."""
    return tensor.dtype in _CODES


def encoded(content: Record, tensors: Mapping[str, Tensor], key: str = KEY) -> bytes:
    """A certificate, or what else is called by `key`, as the bytes of a safetensors file."""
    said = json.dumps(to_builtins(content), separators=(",", ":"), allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {key: said}}
    blocks, at = [], 0
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        block = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(block)],
        }
        blocks.append(block)
        at += len(block)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])


def write(path: Path, data: bytes) -> None:
    """Write a file at once: whatever ends the process, its name stands for the old content or for all of the new.

    Raises:
        OutputError: It cannot be written.
    """
    whole_files.write(path, lambda stream: stream.write(data))


class _Entry(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Kind(Generic[C]):
    """What a file may hold: its key in the metadata, the record and its version, what must be true of it.

    `arrays` says of a record which arrays stand beside it, by name: shapes and dtypes.
    """

    key: str
    record: type[C]
    version: int
    contradictions: Callable[[C], Iterator[str]]
    arrays: Callable[[C], Expected]


def called(path: Path) -> str:
    """The key of what a file says that it holds; empty where it says nothing that can be read."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(LARGEST_HEADER, os.fstat(stream.fileno()).st_size):
                return ""
            metadata = json.loads(stream.read(length))["__metadata__"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
    return next(iter(metadata), "") if isinstance(metadata, dict) else ""


def decoded(path: Path) -> tuple[Content, dict[str, Tensor], str]:
    """What a certificate's file holds, and its SHA-256: see `decoded_as`."""
    return decoded_as(_CERTIFICATE, path)


def decoded_as(kind: Kind[C], path: Path) -> tuple[C, dict[str, Tensor], str]:
    """What a file holds, and its SHA-256. Nothing in it is executed, nothing is written.

    Sizes are checked before anything is made of them: memory is at most a few times the file's.

    Raises:
        CertificateError: There is no such file, or it is none, damaged, or of a later version.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            begins = stream.read(8)
            length = int.from_bytes(begins, "little")
            if len(begins) < 8 or length > size - 8:
                _refuse(path, "it is no safetensors file, or cut off")
            if length > LARGEST_HEADER or size > LARGEST_FILE:
                _refuse(path, f"its header takes {length} bytes of {size}, more than any certificate")
            header = stream.read(length)
            text, entries = _header(path, header, size - 8 - length, kind.key)
            content = _content(path, text, kind)
            _fits(path, kind.arrays(content), entries)
            data = stream.read()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) != size - 8 - length:
        _refuse(path, "it changed while it was read")
    digest = hashlib.sha256(begins + header)
    digest.update(data)
    return content, {name: _tensor(data, entry) for name, entry in entries.items()}, digest.hexdigest()


def _refuse(path: Path, why: str) -> NoReturn:
    shown = why if len(why) <= 200 else f"{why[:200]}..."
    raise CertificateError(f"{path} is no certificate that can be used: {shown}.")


def _header(path: Path, header: bytes, size: int, key: str) -> tuple[str, dict[str, _Entry]]:
    """What the certificate says, as text, and where its arrays lie."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands twice in it")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number in strict JSON")

    try:
        found = json.loads(header.decode(), object_pairs_hook=table, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header is no JSON ({error})")
    metadata = found.pop("__metadata__", None) if isinstance(found, dict) else None
    if not isinstance(metadata, dict) or list(metadata) != [key] or not isinstance(metadata[key], str):
        _refuse(path, "nothing in it says that it is one")
    entries = {}
    for name, each in found.items():
        entry = _entry(each)
        if not _NAME.fullmatch(name) or entry is None:
            _refuse(path, f"its tensor {name!r} is none of a certificate's")
        entries[name] = entry
    at = 0
    for entry in sorted(entries.values(), key=lambda each: (each.start, each.stop)):
        if entry.start != at:
            _refuse(path, "its tensors overlap, or leave gaps")
        at = entry.stop
    if at != size:
        _refuse(path, "it is cut off, or longer than its tensors")
    return metadata[key], entries


def _entry(value: Any) -> _Entry | None:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        return None
    dtype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    shape, offsets = value["shape"], value["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(n) is int and 0 <= n <= LARGEST_FILE for n in numbers
        ):
            return None
    if dtype is None or len(offsets) != 2 or len(shape) > 64:
        return None
    if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        return None
    return _Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _content(path: Path, text: str, kind: Kind[C]) -> C:
    try:
        content = read(text, kind.record, kind.version)
    except NewerError as error:
        raise CertificateError(f"{path} was written by a later version ({error}); install that.") from error
    except UnknownError:
        _refuse(path, "nothing in it says that it is one")
    except DamagedError as error:
        _refuse(path, str(error))
    try:
        wrong = next(kind.contradictions(content), "")
    except RecursionError:
        wrong = "it is nested deeper than any"
    if wrong:
        _refuse(path, wrong)
    return content


def _fits(path: Path, expected: Expected, entries: Mapping[str, _Entry]) -> None:
    """See that the arrays are those that the content speaks of, no more and no fewer."""
    found = {name: (entry.shape, entry.dtype) for name, entry in entries.items()}
    if found != expected:
        wrong = next(n for n in sorted({*found, *expected}) if found.get(n) != expected.get(n))
        _refuse(path, f"its tensor {wrong} is not what its description says")


def _arrays(content: Content) -> Expected:
    expected: Expected = {
        f"weights/{k}": (each.shape, _torch(each.dtype))
        for k, each in enumerate(content.tensors)
        if each.stored
    }
    expected |= of_inputs(content.inputs, "inputs")
    for k, recording in enumerate(content.recordings):
        expected |= of_recording(recording, str(k))
    return expected


def of_inputs(inputs: InputRecord, place: str) -> Expected:
    """The arrays of inputs that are kept."""
    if inputs.structure is None:
        return {}
    given = zip(inputs.info.shapes, inputs.info.dtypes, strict=False)
    return {f"{place}/{k}": (shape, _torch(dtype)) for k, (shape, dtype) in enumerate(given)}


def of_recording(recording: RecordingRecord, place: str) -> Expected:
    """The arrays of a recording: a row for each tensor, and outputs in full."""
    rows: Expected = {
        f"{place}/{name}": ((recording.rows, *rest), dtype) for name, (rest, dtype) in ARRAYS.items()
    }
    return rows | {
        f"{place}/full/{n}": (each.shape, _torch(each.dtype))
        for n, each in enumerate(recording.outputs)
        if each.stored
    }


def _torch(name: str) -> torch.dtype | None:
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else None


def _tensor(data: bytes, entry: _Entry) -> Tensor:
    if entry.start == entry.stop:
        return torch.empty(entry.shape, dtype=entry.dtype)
    block = np.frombuffer(data, np.uint8, entry.stop - entry.start, entry.start).copy()
    return torch.from_numpy(block).view(entry.dtype).reshape(entry.shape)


_CERTIFICATE = Kind(KEY, Content, CERTIFICATE_VERSION, contradictions, _arrays)
