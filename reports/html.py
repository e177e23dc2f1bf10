"""The report as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.view import page

if TYPE_CHECKING:
    from verifier.result import Verification


def render(verification: Verification) -> str:
    """The page, the same bytes for the same verification. Everything in it is escaped."""
    return _environment().get_template("report.html").render(page=page(verification))


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
