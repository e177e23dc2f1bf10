"""The pytest plugin: the fixture `parity`, reports of tests, and failures that fit on a screen.

It is loaded with every pytest session of an environment, so it imports nothing that takes time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from verifier.errors import VerifierError
from verifier.gate.parity import Here, ParityError, assert_parity, folder_of, reporting

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of parity tests."""
    group = parser.getgroup("parity", "parity of models (verifier)")
    group.addoption(
        "--parity-report",
        metavar="DIR",
        help="Keep the report of every parity assertion here, a folder a test; else only failing ones, in pytest's "
        "temporary directory.",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Say where reports go while a test runs."""
    wanted = item.config.getoption("parity_report")
    root = Path(wanted).absolute() if wanted else _temporary(item)
    with reporting(Here(root / folder_of(item.nodeid), every=wanted is not None)):
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
    return report


@pytest.fixture
def parity() -> Callable[..., object]:
    """`verifier.assert_parity`: `parity(candidate, baseline, inputs)` asserts that both are one function."""
    return assert_parity
