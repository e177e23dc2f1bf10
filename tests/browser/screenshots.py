"""Pictures of the report of every sample and of all other pages, to be looked at: light, dark and on a phone.

python -m tests.browser.screenshots DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from reports import html
from tests import pages, samples
from tests.browser.finding import chromium

MODES = {
    "light": (1280, "light"),
    "dark": (1280, "dark"),
    "phone": (390, "light"),
    "phone-dark": (390, "dark"),
}


def main(directory: Path) -> None:
    """Write each page and its pictures into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        reports = {**samples.SAMPLES, "deep": samples.deep}
        for name in [*pages.PAGES, *reports]:
            page = directory / f"{name.replace(' ', '-')}.html"
            text = pages.PAGES[name]() if name in pages.PAGES else html.render(reports[name]())
            page.write_text(text, encoding="utf-8")
            for mode, (width, scheme) in MODES.items():
                opened = browser.new_page(
                    viewport={"width": width, "height": 900},
                    color_scheme=scheme,  # type: ignore[arg-type] # one of the two it takes
                )
                opened.goto(page.resolve().as_uri())
                if name in reports:
                    opened.wait_for_selector("html[data-ready]", state="attached")
                opened.screenshot(path=page.with_name(f"{page.stem}-{mode}.png"), full_page=True)
                opened.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
