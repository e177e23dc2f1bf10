"""Ctrl-C at any moment: exit code 130, soon, and nothing left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOON = 5  # seconds

# Tells the moment a module begins to be imported.
SPY = """
import sys, pathlib, importlib.abc
class Spy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            pathlib.Path({mark!r}).touch()
spy = Spy()
sys.meta_path.insert(0, spy)
"""


MOMENTS = int(os.environ.get("VERIFIER_MOMENTS", "3"))
"""How many random ones; more by hand."""


def wait_for(mark: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{mark.name} never came"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, float]:
    """Press Ctrl-C; exit code, stderr and how long it took."""
    os.killpg(process.pid, signal.SIGINT)
    pressed = time.monotonic()
    _, err = process.communicate(timeout=90)
    return process.returncode, err, time.monotonic() - pressed


def group_is_gone(process: subprocess.Popen[str]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def check_interrupted(place: Path, process: subprocess.Popen[str]) -> None:
    code, err, seconds = interrupt(process)

    assert code == 130, err
    assert err == "verifier: interrupted; nothing was written.\n"
    assert seconds < SOON
    assert group_is_gone(process)
    assert list(place.glob("verifier-report/*")) == []
    assert list((place / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "module", ["verifier.cli", "typer", "verifier.cli.run", "torch", "torch.nn", "msgspec", "numba"]
)
def test_an_interruption_while_modules_are_imported(
    place: Path, start: Callable[..., subprocess.Popen[str]], module: str
) -> None:
    spying = place / "spying"
    spying.mkdir()
    mark = place / "importing"
    (spying / "sitecustomize.py").write_text(SPY.format(module=module, mark=str(mark)), encoding="utf-8")
    process = start(
        *("run", "--baseline", "nets.py:net", "--candidate", "nets.py:dawdling", "--image-size", "small"),
        env={"PYTHONPATH": str(spying)},
    )
    wait_for(mark, process)
    check_interrupted(place, process)


# As torch does in C++, where an exception on its way through ends the process.
TERMINATES = """
import os, pathlib, time
try:
    pathlib.Path({mark!r}).touch()
    time.sleep(60)
except BaseException:
    os.abort()
"""


def test_an_interruption_where_torch_lets_no_exception_pass(
    place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    library = place / "spying" / "torch"
    library.mkdir(parents=True)
    mark = place / "importing"
    (library / "__init__.py").write_text(TERMINATES.format(mark=str(mark)), encoding="utf-8")
    process = start(
        *("run", "--baseline", "nets.py:net", "--candidate", "nets.py:net", "--image-size", "small"),
        env={"PYTHONPATH": str(place / "spying")},
    )
    wait_for(mark, process)
    check_interrupted(place, process)


# As where what ends the process is half imported itself, and fails once the user has been told.
FAILING = """
import sys
from verifier.cli import interruption
def leave():
    print("told", file=sys.stderr, flush=True)
    interruption.tell_nothing()
    raise AttributeError
interruption.listen(leave)
exec(compile("import signal; signal.raise_signal(signal.SIGINT)", "<frozen importlib._bootstrap>", "exec"))
"""


def test_an_interruption_is_told_once() -> None:
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "told\n")


@pytest.mark.parametrize(
    ("candidate", "step"),
    [("slow_at_once", 0), ("dawdling", 3), ("stuck", 0), ("deaf", 0)],
    ids=[
        "while the candidate is recorded",
        "between two of its layers",
        "inside one slow layer",
        "where the first one is lost",
    ],
)
def test_an_interruption_while_the_candidate_runs(
    place: Path, start: Callable[..., subprocess.Popen[str]], candidate: str, step: int
) -> None:
    process = start(
        *("run", "--baseline", "nets.py:net", "--candidate", f"nets.py:{candidate}"),
        *("--image-size", "small", "--batch-size", "2"),
    )
    wait_for(place / f"reached-step-{step}", process)
    check_interrupted(place, process)


DESTROYED = """
import gc, os, signal
from verifier.cli import interruption
interruption.listen(lambda: os._exit(9))


class Lasting:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):
            pass


held = Lasting()
try:
    del held
except KeyboardInterrupt:
    pass
print("on")
"""


def test_an_interruption_that_meets_a_destructor_is_not_reported_by_python() -> None:
    ended = subprocess.run([sys.executable, "-c", DESTROYED], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) in {("on\n", ""), ("", "")}


def test_an_interruption_at_any_moment_leaves_an_earlier_result_as_it_was(
    place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    spying = place / "spying"
    spying.mkdir()
    mark = place / "importing"
    (spying / "sitecustomize.py").write_text(
        SPY.format(module="verifier.cli", mark=str(mark)), encoding="utf-8"
    )

    def begin() -> tuple[subprocess.Popen[str], float]:
        mark.unlink(missing_ok=True)
        process = start(
            *("run", "--baseline", "nets.py:net", "--candidate", "nets.py:net", "--no-semantics"),
            *("--image-size", "small", "--batch-size", "2"),
            env={"PYTHONPATH": str(spying)},
        )
        wait_for(mark, process)
        return process, time.monotonic()

    process, began = begin()
    assert process.wait(timeout=120) == 0
    length = time.monotonic() - began
    report = place / "verifier-report"
    earlier = {path.name: path.read_bytes() for path in report.iterdir()}
    whole = earlier.keys()

    for _ in range(MOMENTS):
        process, _ = begin()
        moment = random.uniform(0, length)
        time.sleep(moment)
        if process.poll() is not None:  # it was faster this time, and has a new result
            earlier = {path.name: path.read_bytes() for path in report.iterdir()}
            continue
        code, err, seconds = interrupt(process)
        now = {path.name: path.read_bytes() for path in report.iterdir()}
        if (code, err) == (0, "") and now.keys() == whole and now != earlier:
            earlier = now  # it had ended when it was interrupted
            continue

        assert (code, seconds < SOON) == (130, True), (moment, err)
        if err == "verifier: interrupted; the result is in verifier-report.\n":  # after all was done
            earlier = {path.name: path.read_bytes() for path in report.iterdir()}
        else:
            assert err == "verifier: interrupted; nothing was written.\n", moment
        assert {path.name: path.read_bytes() for path in report.iterdir()} == earlier, moment
        assert list((place / "tmp").iterdir()) == []


SWALLOWING = """
import os, signal, time

try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)  # the answer comes at once
except BaseException:
    pass
raise ImportError("cannot load module more than once per process")
"""


def test_an_interruption_that_a_library_swallows_is_one_all_the_same(
    place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    (place / "swallowing.py").write_text(SWALLOWING, encoding="utf-8")
    (place / "needing.py").write_text("import swallowing\nfrom nets import net\n", encoding="utf-8")
    process = start("run", "--baseline", "nets.py:net", "--candidate", "needing.py:net")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "verifier: interrupted; nothing was written.\n")
