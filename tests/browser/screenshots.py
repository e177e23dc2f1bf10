"""Pictures of the report of every sample, to be looked at: light, dark and on a phone.

python -m tests.browser.screenshots DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from reports import html
from tests import samples
from tests.browser.finding import chromium

MODES = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}


def main(directory: Path) -> None:
    """Write a page and three pictures of each sample into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name, make in {**samples.SAMPLES, "deep": samples.deep}.items():
            page = directory / f"{name.replace(' ', '-')}.html"
            page.write_text(html.render(make()), encoding="utf-8")
            for mode, (width, scheme) in MODES.items():
                opened = browser.new_page(
                    viewport={"width": width, "height": 900},
                    color_scheme=scheme,  # type: ignore[arg-type] # one of the two it takes
                )
                opened.goto(page.resolve().as_uri())
                opened.wait_for_selector("html[data-ready]", state="attached")
                opened.screenshot(path=page.with_name(f"{page.stem}-{mode}.png"), full_page=True)
                opened.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
