"""Options and arguments that commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Arch = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Short for --candidate reference:NAME and its --baseline; see `models`."
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="The trusted model: torchvision:NAME, reference:NAME, package.module:callable or file.py:callable.",
    ),
]
Candidate = Annotated[
    str | None, typer.Option(metavar="SPEC", help="The model under test, in the same forms.")
]
DataName = Annotated[
    str,
    typer.Option(
        metavar="digits|cifar10", help="What to learn from: scikit-learn's handwritten digits, or CIFAR-10."
    ),
]
DataDirectory = Annotated[
    Path, typer.Option(metavar="DIR", help="Where CIFAR-10 lies, or is downloaded to if it does not.")
]
MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="FILE",
        help="TOML of `candidate name = baseline name` for tensors whose partner is not found; takes wildcards.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=2**31 - 1, help="For models, the order of the data and what is drawn."
    ),
]
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
