"""The report as one page that needs nothing else: no font, no image, no request of any kind."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from markupsafe import Markup

from reports import check, comparison, history, view, wording
from reports.curves import BOX
from reports.templating import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import Check, History, Result

SCRIPT = ("data", "table", "details", "tree", "plot", "start")
"""Parts of the script, in the order in which they need one another."""


def render(verification: Result) -> str:
    """The page, the same bytes for the same verification.

    Everything in it is escaped. The page allows itself no script and no style but the two it comes with, which its
    security policy names by their hashes: text that found a way into the markup could do nothing there.
    """
    script, verification = _script(), wording.shown(verification)
    return _rendered(
        "report.html",
        page=view.page(verification),
        data=Markup(view.data(verification)),  # noqa: S704 - `table.embedded` makes it safe
        script=Markup(script),  # noqa: S704 - of this package
        scripts=_hash(script),
    )


def render_comparison(before: Result, after: Result) -> str:
    """The page that puts two results side by side; it has no script."""
    return _rendered("comparison.html", page=comparison.page(before, after), scripts="'none'")


def render_history(found: History) -> str:
    """The page of a history; it has no script."""
    return _rendered(
        "history.html", ("style.css", "training.css"), page=history.page(found), box=BOX, scripts="'none'"
    )


def render_check(found: Check) -> str:
    """The page of a check, which leads to those of its models; it has no script."""
    return _rendered("check.html", page=check.page(wording.shown(found)), scripts="'none'")


def _rendered(
    template: str, sheets: Sequence[str] = ("style.css",), *, scripts: str, **values: object
) -> str:
    style = "".join(map(_source, sheets))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {scripts}"
    return (
        environment().get_template(template).render(style=Markup(style), policy=policy, **values)  # noqa: S704 - of this package
    )


def _script() -> str:
    """The script: its parts share one scope, and nothing outside it."""
    parts = "\n".join(_source(f"script/{name}.js") for name in SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _source(name: str) -> str:
    """A file of this package as it will stand on the page: the hash is of what a browser reads, which has no CR."""
    pages = environment()
    assert pages.loader is not None  # noqa: S101 - it was given one
    return pages.loader.get_source(pages, name)[0].replace("\r\n", "\n")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
