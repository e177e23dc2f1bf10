"""`history`: what was recorded of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from verifier.cli import exits, options, showing
from verifier.errors import UsageError

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List recorded runs, and name those in which the error of a site changed.",
)

_MOST = 40  # runs listed where nobody says how many

_Model = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Part of either specification, or a wildcard pattern.")
]
_Branch = Annotated[str | None, typer.Option(metavar="PATTERN", help="The branch they were recorded on.")]
_Cell = Annotated[str | None, typer.Option(metavar="PATTERN", help="Cells, such as cpu/float64 or cuda/*.")]
_Site = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="Sites by name, wildcard or module: their errors over runs, a table each."
    ),
]
_Verdict = Annotated[
    str | None, typer.Option(metavar="VERDICT", help="match, accepted, diverged or inconclusive.")
]
_Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Recorded since: a date, a time, or an age such as 12h or 7d."),
]
_Last = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="The last N alone; the terminal lists 40 otherwise.")
]


@app.callback()
def history(
    context: typer.Context,
    file: options.History = None,
    model: _Model = None,
    branch: _Branch = None,
    cell: _Cell = None,
    site: _Site = None,
    verdict: _Verdict = None,
    since: _Since = None,
    last: _Last = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with charts, history.html, here.")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List recorded runs, and name those in which the error of a site changed."""
    with exits.translated(debug=debug):
        asked: dict[str, Any] = {
            "model": model, "branch": branch, "cell": cell, "site": site, "verdict": verdict, "since": since,
            "last": last,
        }  # fmt: skip
        if context.invoked_subcommand is not None:
            if file is not None or out is not None or any(value is not None for value in asked.values()):
                raise UsageError(f"options of `history {context.invoked_subcommand}` come behind it.")
            return
        from reports import history as report
        from verifier.gate.history import required
        from verifier.gate.recall import Selection, recall

        found = recall(required(file), Selection(**asked))
        if out is not None:
            from reports import html
            from verifier.storage.saving import save_text

            save_text(html.render_history(found), out / "history.html")
        showing.say(report.plain(found, sites=site is not None, most=_MOST if last is None else None))


@app.command("export")
def export(
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv file, or a .parquet file, which needs pyarrow.")
    ],
    file: options.History = None,
    model: _Model = None,
    branch: _Branch = None,
    cell: _Cell = None,
    site: _Site = None,
    verdict: _Verdict = None,
    since: _Since = None,
    last: _Last = None,
    debug: options.Debug = False,
) -> None:
    """Write all figures as a table, one row a run, cell and site."""
    with exits.translated(debug=debug):
        from verifier.gate.exporting import check_target, save_frame
        from verifier.gate.history import required
        from verifier.gate.recall import Selection, frame

        check_target(target)
        selection = Selection(
            model=model, branch=branch, cell=cell, site=site, verdict=verdict, since=since, last=last
        )
        save_frame(frame(required(file), selection), target)
