"""Every routine command, each in an environment of its own with pinned versions: `uvx nox -l` lists them."""

from __future__ import annotations

from typing import NoReturn

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2026.7.11"  # the first known to tell a failed command's exit code
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True  # a skipped session would end with 0, as a match does
nox.options.sessions = ["lint", "types", "tests"]

# The versions constraints.txt can be installed on; where none is found, uv fetches one.
PYTHON = ">=3.11,<3.15"
PYPROJECT = nox.project.load_toml("pyproject.toml")
PINNED = ("--constraint", "constraints.txt")
# A process takes up to 3 GiB. Tests of one file share what they have built, so they stay together.
PARALLEL = ("--numprocesses", "auto", "--maxprocesses", "8", "--dist", "loadfile")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
OTHERS = ("torch==2.11.*", "torchvision==0.26.*", "transformers==4.57.*")  # releases to record under
CANNOT_RUN = 3
EXIT_CODES = {
    0: "match",
    1: "diverged",
    2: "usage error",
    CANNOT_RUN: "could not run",
    4: "inconclusive",
    130: "interrupted",
}


@nox.session(python=PYTHON)
def verify(session: nox.Session) -> None:
    """Compare a candidate with its baseline: `nox -s verify -- --arch resnet50`."""
    try:
        install(session)
    except CommandFailed:
        exit_with(session, CANNOT_RUN)
    try:
        session.run("python", "-m", "verifier", "run", *session.posargs)
    except CommandFailed as failure:
        exit_with(session, CANNOT_RUN if failure.return_code is None else failure.return_code)


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run the tests, in as many processes as there are cores: `nox -s tests -- -k budget`."""
    install(session, "test")
    session.run("pytest", *PARALLEL, *session.posargs, env=ONE_THREAD)


@nox.session(python=PYTHON)
def thorough(session: nox.Session) -> None:
    """Run what `tests` runs a few cases of in all of them: networks, libraries, dtypes. Takes long."""
    install(session, "test")
    session.run("pytest", "-m", "thorough and not gpu", *PARALLEL, *session.posargs, env=ONE_THREAD)


@nox.session(python=PYTHON)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device, which skip where there is none: `nox -s gpu -- -k triton`."""
    install(session, "test")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session(python=PYTHON)
def e2e(session: nox.Session) -> None:
    """Open reports in the system's Chromium: `nox -s e2e -- -k keyboard`; without one the tests are skipped.

    Reports are made from records alone, so neither torch nor the package need be installed.
    `VERIFIER_REQUIRE_BROWSER=1` makes a missing browser a failure.
    """
    session.install(*PINNED, *group("e2e"))
    session.run("python", "-m", "pytest", "tests/browser", *session.posargs)


@nox.session(python=PYTHON)
def picture(session: nox.Session) -> None:
    """Make the picture of a report in README and docs, and its summary, anew from a run of a planted fault."""
    install(session, "e2e")
    session.run("python", "-m", "tests.browser.picture", *session.posargs)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and formatting; `nox -s lint -- --fix` repairs what can be repaired."""
    session.install(*PINNED, *group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """Check types strictly, tests included."""
    install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measure time and memory: `nox -s bench -- peers`."""
    install(session, "bench")
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session(python=PYTHON)
def releases(session: nox.Session) -> None:
    """Record models under other releases of torch and transformers, and compare them under the pinned ones."""
    place = session.create_tmp()
    session.install("--editable", ".", *OTHERS)
    session.run("python", "-m", "tests.releases", "record", place)
    install(session, "test")
    session.run("python", "-m", "tests.releases", "compare", place)


@nox.session(python=PYTHON)
def scorecard(session: nox.Session) -> None:
    """Plant faults and count what is found: `nox -s scorecard -- --mutants 1000 --benign 300 --ports 117`."""
    install(session, "test")
    session.run("python", "-m", "tests.mutants.scorecard", *session.posargs)


@nox.session(python=PYTHON)
def families(session: nox.Session) -> None:
    """Verify families of timm and transformers, and find a fault in each: `nox -s families -- timm --count 60`."""
    install(session, "test")
    session.run("python", "-m", "tests.zoo.families", *session.posargs)


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its sample images and digits, and dependency groups.

    Editable, so that what numba compiled stays next to the source and a second run need not compile again.
    """
    session.install(*PINNED, "--editable", ".[samples,digits]", *group(*groups))


def group(*names: str) -> tuple[str, ...]:
    """The requirements in these dependency groups of `pyproject.toml`."""
    return nox.project.dependency_groups(PYPROJECT, *names)


def exit_with(session: nox.Session, code: int) -> NoReturn:
    """End nox with the exit code of the command that failed.

    Nox's own exit code for any failure is 1, which a gate would read as `diverged`.
    """
    if code < 0:  # killed by a signal, by an exhausted memory for one: as shells count
        code = 128 - code
    session.log(f"Exit code {code}: {EXIT_CODES.get(code, 'ended unexpectedly')}.")
    raise SystemExit(code)
