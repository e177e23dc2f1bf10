"""`report`: render again from a saved result, or put two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.errors import CannotRunError, UsageError


def report(
    directory: options.Result,
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
    debug: options.Debug = False,
) -> None:
    """Render the report, or the page of a training, again from what was saved, or compare two results."""
    with exits.translated(debug=debug):
        from verifier.training.saving import is_experiment, load_experiment, save_experiment

        if later is None and out is None and is_experiment(directory):
            found = load_experiment(directory)
            lost = save_experiment(found, directory)
            showing.show_experiment(found, directory)
            _end(lost)
            return
        from verifier.storage.saving import load, render_again, save_comparison

        if later is not None:
            verification, after = load(directory), load(later)
            if out is not None:
                save_comparison(verification, after, out)
            showing.show_comparison(verification, after)
            return
        if out is not None:
            raise UsageError(
                "--out is for two results: name a second one, or leave it out to render in place."
            )
        verification, lost = render_again(directory)
        showing.show(verification, directory if directory.is_dir() else directory.parent)
        _end(lost)


def _end(lost: tuple[str, ...]) -> None:
    """Rendering is all that was asked for: what could not be is no warning."""
    if lost:
        raise CannotRunError(" ".join(lost))
