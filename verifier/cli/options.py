"""Options and arguments that commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")]
Policy = Annotated[
    str,
    typer.Option(
        metavar="strict|criteria|FILE",
        help="strict judges by error budgets, criteria by the published criteria alone; or a TOML file.",
    ),
]
Result = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Directory a run wrote its result to, or the result.json itself."),
]
