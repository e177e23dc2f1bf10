"""Files that anybody may have written: read as they stand, or refused in a sentence, with bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tests.sweeps import swept
from tests.verifier.certificates.nets import Net, images
from verifier import Certificate, CertificateError, record
from verifier.certificates.file import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def whole() -> bytes:
    return record(Net(), images()).encoded()


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header: Any, rest: bytes, *, text: bytes | None = None) -> bytes:
    said = json.dumps(header).encode() if text is None else text
    return len(said).to_bytes(8, "little") + said + rest


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    before = sorted(path.parent.iterdir())
    tracemalloc.start()
    with pytest.raises(CertificateError) as caught:
        Certificate.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.count("\n") == 0
    assert len(message) < 600
    assert peak < 100e6
    assert sorted(path.parent.iterdir()) == before
    return message


def test_a_certificate_is_a_safetensors_file_that_reads_back_as_it_was(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole)
    with safe_open(path, framework="pt") as opened:
        names = set(opened.keys())
        assert list(opened.metadata()) == [KEY]
    assert {"0/sketches", "1/bits", "inputs/0"} <= names
    assert Certificate.load(path).encoded() == whole


def changed_content(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        header, rest = taken_apart(data)
        content = json.loads(header["__metadata__"][KEY])
        change(content)
        header["__metadata__"][KEY] = json.dumps(content)
        return put_together(header, rest)

    return changed


def changed_header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        header, rest = taken_apart(data)
        change(header)
        return put_together(header, rest)

    return changed


def duplicated(data: bytes) -> bytes:
    header, rest = taken_apart(data)
    text = json.dumps(header)
    return put_together(
        None, rest, text=(text[:-1] + ', "0/bits": ' + json.dumps(header["0/bits"]) + "}").encode()
    )


def nested(data: bytes) -> bytes:
    _header, rest = taken_apart(data)
    return put_together(None, rest, text=b'{"a":' * 200_000)


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "cut off"),
    "a header of 10 GB": (lambda data: (10 << 30).to_bytes(8, "little") + data[8:], "cut off"),
    "a header larger than any": (
        lambda data: (17 << 20).to_bytes(8, "little") + b" " * (18 << 20),
        "more than any",
    ),
    "cut off": (lambda data: data[:-1], "cut off"),
    "longer": (lambda data: data + b"\0", "longer"),
    "no JSON": (lambda data: put_together(None, b"", text=b"{"), "no JSON"),
    "deeply nested": (nested, "no JSON"),
    "a name twice": (duplicated, "twice"),
    "other metadata": (changed_header(lambda h: h["__metadata__"].update(more="x")), "nothing in it says"),
    "a path for a name": (
        changed_header(lambda h: h.update({"../../etc/passwd": h.pop("0/bits")})),
        "none of a",
    ),
    "overlapping": (
        changed_header(lambda h: h["0/bits"].update(data_offsets=h["0/masks"]["data_offsets"])),
        "overlap|is none of",
    ),
    "a huge shape": (
        changed_header(lambda h: h["0/bits"].update(shape=[1 << 62, 2])),
        "none of a certificate's",
    ),
    "a negative shape": (
        changed_header(lambda h: h["0/bits"].update(shape=[-1, 2])),
        "none of a certificate's",
    ),
    "another dtype": (changed_header(lambda h: h["0/bits"].update(dtype="F64")), "not what its description"),
    "NaN in metadata": (changed_content(lambda c: c.update(seed=float("nan"))), "NaN"),
    "a later version": (changed_content(lambda c: c.update(schema_version=99)), "later version"),
    "no version": (changed_content(lambda c: c.pop("schema_version")), "nothing in it says"),
    "an unknown field": (changed_content(lambda c: c.update(more=1)), "more"),
    "a wrong type": (changed_content(lambda c: c["graph"].update(outputs="all")), "outputs"),
    "a site out of reach": (
        changed_content(lambda c: c["graph"]["sites"][2].update(inputs=[999])),
        "not there",
    ),
    "calls that skip": (changed_content(lambda c: c["graph"]["calls"][1].update(first=7)), "does not follow"),
    "fewer rows": (changed_content(lambda c: c["recordings"][0]["sites"].pop()), "recordings|description"),
    "a cell that is none": (changed_content(lambda c: c["recordings"][0].update(cell="abacus/x")), "cell"),
    "a digest that is none": (changed_content(lambda c: c["tensors"][0].update(own="..")), "no SHA-256"),
    "negative noise": (changed_content(lambda c: c["recordings"][0].update(noise=[-1.0])), "noise"),
    "a tensor more": (changed_content(lambda c: c["tensors"].pop()), "not those of the graph"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(how: str, whole: bytes, tmp_path: Path) -> None:
    change, said = HOSTILE[how]
    assert re.search(said, refusal(tmp_path / "a.safetensors", change(whole)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_refused_or_harmless(data: st.DataObject, whole: bytes, tmp_path: Path) -> None:
    """What stays readable is a certificate again: its own bytes, read back."""
    length = int.from_bytes(whole[:8], "little")
    header_only = data.draw(st.booleans())
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 8 + length if header_only else len(whole) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path = tmp_path / "a.safetensors"
    path.write_bytes(damaged)
    with contextlib.suppress(CertificateError):
        Certificate.load(path).encoded()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="cannot be read"):
        Certificate.load(tmp_path / "none.safetensors")


RECORDING = """
import sys
from tests.verifier.certificates.nets import Net, images
from verifier import record
certificate = record(Net(), images())
print("ready", flush=True)
while True:
    certificate.save(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("times", swept([2, 20], [2]))
def test_whoever_is_killed_while_writing_leaves_nothing_or_all(times: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    left = 0
    for turn in range(times):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", RECORDING, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.001 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left += path.exists()
        assert not path.exists() or Certificate.load(path).content.model.type == "Net"
    assert times <= 2 or 0 < left < times  # before, and after


KILLED = """
import sys
from tests.verifier.certificates.nets import Net, images
from verifier import record
print("ready", flush=True)
record(Net(), images()).save(sys.argv[1])
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_whoever_is_killed_twenty_times_while_recording_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    command = [sys.executable, "-c", KILLED, str(path)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - started
    path.unlink()
    killed = 0
    for turn in range(20):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2 * whole * turn / 20)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if path.exists():  # it had come to its end
            Certificate.load(path)
            path.unlink()
        else:
            assert [*tmp_path.iterdir()] == []
    assert killed >= 10
