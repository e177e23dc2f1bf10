"""What a candidate does to the process gives no exit code, and leaves no result that looks current."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ends processes as Linux does")

RUN = ("run", "--baseline", "nets.py:net", "--image-size", "small", "--batch-size", "2", "--no-semantics")


@pytest.fixture
def earlier(place: Path, eps_fault: Ended) -> dict[str, bytes]:
    """The files of a result that lies in DIR."""
    (place / "DIR").mkdir()
    files = {
        path.name: path.read_bytes() for path in (eps_fault.directory / "DIR").iterdir() if path.is_file()
    }
    for name, content in files.items():
        (place / "DIR" / name).write_bytes(content)
    return files


def aside(place: Path) -> dict[str, bytes]:
    """The files of the result that was set aside; nothing else is there."""
    assert [path.name for path in (place / "DIR").iterdir()] == ["earlier"]
    return {path.name: path.read_bytes() for path in (place / "DIR" / "earlier").iterdir()}


def said(ended: Ended, code: int) -> str:
    """The one sentence or two, beside the exit code."""
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert ended.err.startswith("verifier: ")
    assert ended.err.count("\n") == 1
    return ended.err


@pytest.mark.parametrize(
    ("candidate", "code", "what"),
    [
        ("leaves_at_once", 2, "ends.py:leaves_at_once raised SystemExit (ends.py, line "),
        ("leaves", 3, "the candidate ends.py:leaves fails on inputs that the baseline takes: SystemExit"),
    ],
)
def test_sys_exit_is_no_match(
    call: Callable[..., Ended], place: Path, earlier: dict[str, bytes], candidate: str, code: int, what: str
) -> None:
    message = said(call(*RUN, "--candidate", f"ends.py:{candidate}", "--out", "DIR"), code)
    assert what in message
    assert message.endswith("An earlier result was set aside in DIR/earlier.\n")
    assert aside(place) == earlier


@pytest.mark.parametrize("wrong", [("--candidate", "ends.py:misspelt"), ("--candidate", "missing.py:net")])
def test_a_wrong_command_leaves_an_earlier_result_where_it_is(
    call: Callable[..., Ended], place: Path, earlier: dict[str, bytes], wrong: tuple[str, ...]
) -> None:
    said(call(*RUN, *wrong, "--out", "DIR"), 2)
    assert {path.name: path.read_bytes() for path in (place / "DIR").iterdir()} == earlier


@pytest.mark.parametrize(
    ("candidate", "how"),
    [
        ("exits", "ended with exit code 0 before there was a verdict"),
        ("aborts", "was ended by SIGABRT (Aborted)"),
        ("crashes", "was ended by SIGSEGV (Segmentation fault)"),
        ("is_killed", "was killed (SIGKILL), probably because memory ran out"),
    ],
)
def test_the_death_of_an_isolated_candidate_is_told_with_the_last_it_reached(
    call: Callable[..., Ended], place: Path, earlier: dict[str, bytes], candidate: str, how: str
) -> None:
    message = said(call(*RUN, "--candidate", f"ends.py:{candidate}", "--out", "DIR", "--isolate"), 3)
    assert message.startswith(f"verifier: the process of the models {how}")
    assert "the candidate at " in message
    assert aside(place) == earlier


def test_a_candidate_that_hoards_memory_up_to_a_limit_could_not_run(
    call: Callable[..., Ended], place: Path, earlier: dict[str, bytes]
) -> None:
    message = said(call(*RUN, "--candidate", "ends.py:hoards", "--out", "DIR", "--isolate"), 3)
    assert "memory" in message.lower() or "SIG" in message
    assert aside(place) == earlier


def test_an_isolated_candidate_that_never_ends_is_ended_and_so_is_what_it_started(
    place: Path, start: Callable[..., subprocess.Popen[str]], earlier: dict[str, bytes]
) -> None:
    process = start(*RUN, "--candidate", "ends.py:loops", "--out", "DIR", "--timeout", "8")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (3, "")
    assert err.startswith(
        "verifier: the process of the models had not ended after 8 s (--timeout) and was killed"
    )
    assert (place / "looping").exists() == (
        "the candidate at" in err
    )  # a busy machine may not have come so far
    if (place / "looping").exists():
        assert aside(place) == earlier


def test_an_isolated_verdict_is_the_same_verdict(call: Callable[..., Ended]) -> None:
    ended = call(*RUN, "--candidate", "nets.py:other_eps", "--out", "DIR", "--isolate", "--timeout", "300")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("diverged: ")
    assert ended.result("DIR")["verdict"] == "diverged"


def test_closed_streams_exit_handlers_and_threads_change_neither_words_nor_code(
    call: Callable[..., Ended],
) -> None:
    ended = call(*RUN, "--candidate", "ends.py:closes", "--out", "DIR")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("diverged: ")
    assert ended.result("DIR")["verdict"] == "diverged"


def test_a_reader_who_leaves_a_candidate_that_prints_changes_nothing(
    place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(*RUN, "--candidate", "ends.py:floods", "--out", "DIR")
    assert process.stdout is not None
    assert process.stdout.read(10) == "x" * 10
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0
    assert json.loads((place / "DIR" / "result.json").read_text(encoding="utf-8"))["verdict"] == "match"


def runs(child: str) -> bool:
    """Whether a process is there, and no mere entry that nobody has asked for yet."""
    try:
        return (Path("/proc") / child / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[
            0
        ] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_command_ends_the_isolated_process(
    place: Path,
    start: Callable[..., subprocess.Popen[str]],
    earlier: dict[str, bytes],
    number: signal.Signals,
) -> None:
    process = start(*RUN, "--candidate", "ends.py:loops", "--out", "DIR", "--isolate")
    while not (place / "looping").exists():
        assert process.poll() is None
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert [runs(child) for child in children] == [False]
    if number == signal.SIGINT:
        assert (process.returncode, err) == (130, "verifier: interrupted; nothing was written.\n")
        assert {path.name: path.read_bytes() for path in (place / "DIR").iterdir()} == earlier
    else:
        assert process.returncode == -number
        assert aside(place) == earlier
