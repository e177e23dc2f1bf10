"""The one environment all pages are rendered in: everything is escaped, and what is undefined is an error."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence


@functools.cache
def environment() -> Environment:
    """For templates of this package."""
    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def rendered(
    template: str, sheets: Sequence[str] = ("style.css",), *, scripts: str = "'none'", **values: object
) -> str:
    """A page with its style sheets inside.

    It allows itself no style but these, which its security policy names by their hash, and the `scripts` given.
    """
    style = "".join(map(source, sheets))
    policy = f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {scripts}"
    return (
        environment().get_template(template).render(style=Markup(style), policy=policy, **values)  # noqa: S704 - of this package
    )


def source(name: str) -> str:
    """A file of this package as it will stand on the page: the hash is of what a browser reads, which has no CR."""
    pages = environment()
    assert pages.loader is not None  # noqa: S101 - it was given one
    return pages.loader.get_source(pages, name)[0].replace("\r\n", "\n")


def digest(text: str) -> str:
    """The hash of a script or a style as a security policy names it."""
    hashed = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(hashed).decode('ascii')}'"
