"""The report as one page that needs nothing else: no font, no image, no request of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from reports import check, comparison, history, view, wording
from reports.curves import BOX
from reports.templating import digest, rendered, source

if TYPE_CHECKING:
    from verifier.records import Check, History, Result

SCRIPT = ("data", "table", "details", "tree", "plot", "start")
"""Parts of the script, in the order in which they need one another."""


def render(verification: Result) -> str:
    """The page, the same bytes for the same verification.

    Everything in it is escaped. The page allows itself no script and no style but the two it comes with, which its
    security policy names by their hashes: text that found a way into the markup could do nothing there.
    """
    script, verification = _script(), wording.shown(verification)
    return rendered(
        "report.html",
        page=view.page(verification),
        data=Markup(view.data(verification)),  # noqa: S704 - `table.embedded` makes it safe
        script=Markup(script),  # noqa: S704 - of this package
        scripts=digest(script),
    )


def render_comparison(before: Result, after: Result, reports: tuple[str, str] = ("", "")) -> str:
    """The page that puts two results side by side; it has no script.

    `reports` are the addresses of their own pages, as seen from this one; empty where there is none.
    """
    return rendered("comparison.html", page=comparison.page(before, after, reports))


def render_history(found: History) -> str:
    """The page of a history; it has no script."""
    return rendered("history.html", ("style.css", "training.css"), page=history.page(found), box=BOX)


def render_check(found: Check) -> str:
    """The page of a check, which leads to those of its models; it has no script."""
    return rendered("check.html", page=check.page(wording.shown(found)))


def _script() -> str:
    """The script: its parts share one scope, and nothing outside it."""
    parts = "\n".join(source(f"script/{name}.js") for name in SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'
