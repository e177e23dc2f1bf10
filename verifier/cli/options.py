"""Options and arguments that commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")]
_policy = typer.Option(
    metavar="strict|criteria|task|FILE",
    help=(
        "strict judges by error budgets, criteria by the published criteria alone, task (and pruned and int8, "
        "with budgets of their own) by what becomes of the classes; or a TOML file."
    ),
)
Policy = Annotated[str, _policy]
PolicyOrOwn = Annotated[str | None, _policy]
"""None where nobody says: an architecture has a policy of its own, all else is judged strictly."""
Result = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Directory a run wrote its result to, or the result.json itself."),
]
