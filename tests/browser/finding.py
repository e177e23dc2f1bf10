"""Where the system's Chromium is."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """Its path, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
