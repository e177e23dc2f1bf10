"""The command line as a user meets it: a real process in a directory of its own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import verifier
from tests.e2e.nursery import Nursery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).parent
PATIENCE = 300  # seconds: a loaded machine is slow, a hang is forever

FILES = ("result.json", "layers.csv", "report.html", "summary.md", "error-over-depth.png")
"""What a run that compared anything writes."""

TWINS = ("--baseline", "nets.py:net", "--candidate", "nets.py:net")
"""A small network against itself; torchvision is not needed."""


@dataclass(frozen=True)
class Ended:
    """What a command left behind: its exit code, what it said, and the files that are new, by relative path."""

    code: int
    out: str
    err: str
    directory: Path
    new: frozenset[str]

    def result(self, out: str = "verifier-report") -> dict[str, Any]:
        """The result it saved."""
        saved = self.directory / out / "result.json"
        assert saved.is_file(), (self.code, self.out, self.err)
        content: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
        return content

    def refusal(self, code: int) -> str:
        """Its message, once everything a refusal has to be is checked: brief, on stderr alone, without traces."""
        assert (self.code, self.out) == (code, ""), self.err
        assert self.err.startswith("verifier: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert len(self.err) < 600
        assert self.new == frozenset()
        return self.err.removeprefix("verifier: ").rstrip("\n")


def files_in(directory: Path) -> frozenset[str]:
    """The files in `directory`, and the folders among its temporary ones, but not what Python caches."""
    return frozenset(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if "__pycache__" not in path.parts and (path.is_file() or path.parent == directory / "tmp")
    )


def surroundings(directory: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: no terminal habits of whoever runs the tests, temporary files in sight."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    habits = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONWARNINGS")
    services = ("GITHUB_", "CI_")  # in which commands say more
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in habits and not name.startswith(services)
    }
    extra = dict(extra)
    places = [
        extra.pop("PYTHONPATH", ""),
        str(Path(verifier.__file__).parents[1]),
        inherited.get("PYTHONPATH", ""),
    ]
    ours = {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "TMPDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(directory / "__pycache__"),  # importing torchvision makes one
    }
    return inherited | ours | extra


@functools.cache
def nursery() -> Nursery:
    """What most commands are forked from: importing torch takes longer than most of them."""
    return Nursery()


_READ_EARLY = ("PYTHON", "CUDA_", "OMP_")  # by the interpreter, or where torch is imported


def run_command(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run `python -m verifier ...` in `directory` to its end; anew where `env` is read before it begins."""
    environment = surroundings(directory, env or {})
    before = files_in(directory)
    if any(name.startswith(_READ_EARLY) for name in env or {}) or not hasattr(os, "fork"):
        done = subprocess.run(
            [sys.executable, "-m", "verifier", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code, out, err = nursery().run(arguments, directory, environment, PATIENCE)
    return Ended(code, out, err, directory, files_in(directory) - before)


def workplace(directory: Path) -> Path:
    """`directory` with the models the tests name."""
    for name in ("nets.py", "faults.py", "ends.py"):
        shutil.copy(HERE / name, directory / name)
    return directory


@pytest.fixture(scope="session")
def written() -> Callable[[str], set[str]]:
    """The files a run leaves in a directory of this name."""
    return lambda directory: {f"{directory}/{name}" for name in FILES}


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """Runs a command in the directory named first."""
    return run_command


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the models the tests name."""
    return workplace(tmp_path)


@pytest.fixture
def clean_environment(place: Path) -> dict[str, str]:
    """The environment commands get."""
    return surroundings(place, {})


@pytest.fixture
def no_torch(place: Path) -> dict[str, str]:
    """An environment in which importing torch fails."""
    hidden = place / "no_torch"
    hidden.mkdir()
    (hidden / "torch.py").write_text("raise ImportError('no torch today')", encoding="utf-8")
    return {"PYTHONPATH": str(hidden)}


@pytest.fixture
def call(place: Path) -> Callable[..., Ended]:
    """Runs a command in the test's own directory."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        return run_command(place, *arguments, env=env)

    return run


@pytest.fixture
def compare(call: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs `run` with the small network on both sides, unless other models are named, on a small input."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        named = {"--arch", "--baseline", "--candidate"} & set(arguments)
        sized = "--image-size" in arguments
        return call(
            "run",
            *([] if named else TWINS),
            *([] if sized else ["--image-size", "small"]),
            *([] if "--batch-size" in arguments else ["--batch-size", "2"]),
            *arguments,
            env=env,
        )

    return run


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in a process group of its own, to be interrupted as a terminal does it."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str, env: Mapping[str, str] | None = None, at: Path = place
    ) -> subprocess.Popen[str]:
        # A process started while SIGINT is ignored (in the background of a shell) would ignore it too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "verifier", *arguments],
                cwd=at,
                env=surroundings(at, env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run of the user's first example: torchvision's network against the one written from the paper."""
    directory = workplace(tmp_path_factory.mktemp("matched"))
    return run_command(
        directory, "run", "--arch", "resnet18", "--image-size", "small", "--batch-size", "2", "--out", "DIR"
    )


@pytest.fixture(scope="session")
def eps_fault(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run whose candidate has one epsilon of 1e-4: below every published threshold, and another function."""
    directory = workplace(tmp_path_factory.mktemp("eps"))
    return run_command(
        directory,
        *("run", "--baseline", "nets.py:net", "--candidate", "nets.py:other_eps"),
        *("--image-size", "small", "--batch-size", "2", "--out", "DIR"),
    )
