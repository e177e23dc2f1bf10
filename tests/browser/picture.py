"""The picture of a report for the README, and its terminal summary for `docs/report.md`, made of a planted fault.

    python -m tests.browser.picture

It needs Chromium and Playwright, and takes about a minute.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.finding import chromium

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "report.md"
PICTURE = ROOT / "docs" / "report.png"
LARGEST = 300_000  # bytes
SECONDS = re.compile(r"(?<=samples), [\d.]+ s\b")  # docs/performance.md says what a run takes
QUIET = 1.0  # processes that ran in the last minute, on average

RUN = ("run", "--baseline", "torchvision:resnet50", "--candidate", "faults.py:other_eps")
SMALL = ("--image-size", "small", "--batch-size", "2")
BLOCK = re.compile(r"(<!-- nox -s picture -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def main() -> None:
    """Run the fault, photograph its report down to the cause, and put the summary into `docs/report.md`."""
    if os.getloadavg()[0] > QUIET:
        raise SystemExit("this machine is busy: the seconds shown would be those of its other work")
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(ROOT / "tests" / "e2e" / "faults.py", directory)
        done = subprocess.run(
            [sys.executable, "-m", "verifier", *RUN, *SMALL],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 1:
            raise SystemExit(f"the planted fault was not found: {done.stderr}")
        image = photographed(Path(directory) / "verifier-report" / "report.html")
        summary = SECONDS.sub("", done.stdout)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(image)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda block: block[1] + summary + block[3], text), encoding="utf-8")


def photographed(page: Path) -> bytes:
    """The page from its top to the cause, as a PNG of 256 colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
        opened.goto(page.as_uri())
        opened.wait_for_selector("html[data-ready]", state="attached")
        end = opened.locator("#culprits").bounding_box()
        assert end is not None
        clip = {"x": 0, "y": 0, "width": 1180, "height": end["y"] + end["height"] + 24}
        whole = opened.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
        browser.close()
    stream = io.BytesIO()
    image = Image.open(io.BytesIO(whole)).convert("RGB")
    # The method that keeps small areas of a colour of their own, such as marks.
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(stream, "PNG", optimize=True)
    if stream.tell() > LARGEST:
        raise SystemExit(f"the picture has {stream.tell():,} bytes; it may have {LARGEST:,}")
    return stream.getvalue()


if __name__ == "__main__":
    main()
