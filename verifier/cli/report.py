"""`report`: render again from a saved result, or put two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.cli.rendering import KINDS, check_result, other
from verifier.errors import CannotRunError, UsageError
from verifier.gate.formats import Formats


def report(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Directory that a command wrote to, or the record in it itself."),
    ],
    later: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LATER]",
            help="A second result: what got better or worse, appeared or vanished since the first is told instead.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of two results: write the comparison as a page, comparison.html, here."
        ),
    ] = None,
    junit: options.Junit = None,
    sarif: options.Sarif = None,
    code_quality: options.CodeQuality = None,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Render the page of whatever a command saved again, or compare two results."""
    formats = Formats(junit, sarif, code_quality)
    with exits.translated(debug=debug):
        formats.check()
        one = later is None and out is None
        record = other(directory) if one else None
        if formats.files and (record is not None or later is not None):
            raise UsageError(f"{', '.join(formats.files)}: only of one result of a comparison of two models.")
        if record is not None:
            _end(KINDS[record.name](record))
            return
        from verifier.storage.saving import COMPARISON, load, render_again, save_comparison

        if later is not None:
            for each in (directory, later):
                check_result(each, "two results of `run` are compared")
            verification, after = load(directory), load(later)
            if out is not None:
                save_comparison(verification, after, out, (directory, later))
            showing.show_comparison(verification, after, None if out is None else out / COMPARISON)
            return
        if out is not None:
            raise UsageError(
                "--out is for two results: name a second one, or leave it out to render in place."
            )
        from verifier.gate.findings import Outcome

        verification, lost = render_again(directory)
        showing.show(verification, directory if directory.is_dir() else directory.parent, verbose=verbose)
        _end((*lost, *formats.write([Outcome.of(verification)])))


def _end(lost: tuple[str, ...]) -> None:
    """Rendering is all that was asked for: what could not be is no warning."""
    if lost:
        raise CannotRunError(" ".join(lost))
