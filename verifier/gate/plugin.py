"""The pytest plugin: the fixture `parity`, reports of tests, and failures that fit on a screen.

It is loaded with every pytest session of an environment, so it imports nothing that takes time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from verifier.errors import VerifierError
from verifier.gate.parity import Here, ParityError, assert_parity, folder_of, reporting
from verifier.gate.renewing import UPDATE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_HERE = pytest.StashKey[Here]()
_RECORDED = "parity_recorded"  # of a test's report, which workers send as a whole
IN_CI = f"{UPDATE}-in-ci"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of parity tests."""
    group = parser.getgroup("parity", "parity of models (verifier)")
    group.addoption(
        "--parity-report",
        metavar="DIR",
        help="Keep the report of every parity assertion here, a folder a test; else only failing ones, in pytest's "
        "temporary directory.",
    )
    group.addoption(
        UPDATE,
        action="store_true",
        help="Record certificates that are not there, or that the candidate does not match, anew: of the candidate. "
        "Refused where the environment variable CI is set.",
    )
    group.addoption(
        IN_CI, action="store_true", help=f"{UPDATE}, also where the environment variable CI is set."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to record anew where nobody looks: a gate that opens itself is none."""
    if config.getoption("parity_update") and not config.getoption("parity_update_in_ci") and _in_ci():
        raise pytest.UsageError(
            f"{UPDATE} is refused in CI, where it would accept whatever a change has made: record where you can "
            f"look at it and commit the file, or say {IN_CI}"
        )


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Say where reports go while a test runs."""
    wanted = item.config.getoption("parity_report")
    root = Path(wanted).absolute() if wanted else _temporary(item)
    update = item.config.getoption("parity_update") or item.config.getoption("parity_update_in_ci")
    here = Here(root / folder_of(item.nodeid), every=wanted is not None, test=item.nodeid, update=update)
    item.stash[_HERE] = here
    with reporting(here):
        yield


def _temporary(item: pytest.Item) -> Path:
    """A directory that pytest keeps for as long as its own temporary ones; made when a report is written."""
    factory = getattr(item.config, "_tmp_path_factory", None)
    base = factory.getbasetemp() if factory is not None else Path("parity-reports").absolute()
    return Path(base) / "parity"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print of a failed parity assertion, or of one that could not be made, its own lines alone by default."""
    report = yield
    brief = item.config.getoption("tbstyle") == "auto"
    if brief and call.excinfo is not None and isinstance(call.excinfo.value, ParityError | VerifierError):
        report.longrepr = str(call.excinfo.value)
    here = item.stash.get(_HERE, None)
    if here is not None and call.when == "call":
        setattr(report, _RECORDED, list(here.told))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which certificates were recorded, and what changed against those whose places they took."""
    reports = [each for found in terminalreporter.stats.values() for each in found]
    told = dict.fromkeys(lines for each in reports if (lines := "\n".join(getattr(each, _RECORDED, ()))))
    if told:
        terminalreporter.section("parity: certificates recorded")
        for lines in told:
            terminalreporter.write_line(lines)


@pytest.fixture
def parity() -> Callable[..., object]:
    """`verifier.assert_parity`: `parity(candidate, baseline, inputs)`; a baseline may be a certificate."""
    return assert_parity
