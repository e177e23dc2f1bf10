"""The one environment all pages are rendered in: everything is escaped, and what is undefined is an error."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports import sentences


@functools.cache
def environment() -> Environment:
    """For templates of this package."""
    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _finalized(value: object) -> object:
    """What a template prints, with control characters spelt out, which HTML has no way to hold."""
    return sentences.visible(value) if type(value) is str else value
