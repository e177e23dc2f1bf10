"""Reports in a real browser: Chromium as the system has it, without a network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from reports import html
from tests import pages, samples
from tests.browser.finding import chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

REQUIRED = "VERIFIER_REQUIRE_BROWSER"
"""Set where a missing browser is a failure, as in continuous integration: elsewhere these tests are skipped."""


def absent(what: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{what}, and {REQUIRED} is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, started once."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed")
    found = chromium()
    if found is None:
        absent("there is no Chromium on the path")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            # Its own sandbox needs privileges that containers do not have; the pages are ours.
            executable_path=found,
            args=["--no-sandbox"],
        )
        yield started
        started.close()


@dataclass
class Opened:
    """A page as it was opened, with everything it said and asked for."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements in sight that fit."""
        shown = self.page.locator(selector).filter(visible=True)
        texts: list[str] = shown.evaluate_all(
            "all => all.map(each => (each.innerText ?? each.textContent).trim())"
        )
        return texts

    def column(self, heading: str) -> list[str]:
        """What the table of sites shows in a column."""
        place = self.texts("#table thead th").index(heading) + 1
        return self.texts(f"#table tbody tr[data-place] td:nth-child({place})")

    def tells(self, expression: str) -> Any:
        """The value of a script on the page."""
        return self.page.evaluate(expression)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a sample, or another page, by its name, as a file; rendered once."""
    directory = tmp_path_factory.mktemp("reports")
    makers = {**samples.SAMPLES, "deep": samples.deep}

    def file(name: str) -> Path:
        path = directory / f"{name}.html"
        if not path.exists():
            text = pages.PAGES[name]() if name in pages.PAGES else html.render(makers[name]())
            path.write_text(text, encoding="utf-8")
        return path

    return file


@pytest.fixture
def opened(browser: Browser, files: Callable[[str], Path]) -> Iterator[Callable[..., Opened]]:
    """Opens a page from the disk, offline; at the end none may have said or asked for anything."""
    contexts = []
    every = []

    def begin(name: str, *, width: int = 1280, scheme: Any = "light", script: bool = True) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 860},
            color_scheme=scheme,
            offline=True,
            java_script_enabled=script,
        )
        contexts.append(context)
        found = Opened(context.new_page())
        every.append(found)
        found.page.on("console", lambda message: found.messages.append(message.text))
        found.page.on("pageerror", lambda error: found.messages.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(files(name).as_uri())
        if script and name not in pages.PAGES:
            found.page.wait_for_selector("html[data-ready]", state="attached")
        return found

    yield begin
    for context in contexts:
        context.close()
    for found in every:
        assert found.messages == []
        assert [url for url in found.requests if not url.startswith(("file:", "data:"))] == []
