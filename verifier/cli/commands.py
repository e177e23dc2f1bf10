"""The commands, as typer knows them."""

from __future__ import annotations

import typer

import reports  # noqa: F401 - before a program could bring another of this name
from verifier.cli import (
    bisect,
    check,
    history,
    init,
    judge,
    models,
    plan,
    preprocess,
    record,
    report,
    run,
    train,
    train_parity,
)

app = typer.Typer(
    name="verifier",
    help="Is this network still the same function as the trusted one, layer by layer?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=(
        "Exit codes: 0 match (or accepted by policy), 1 diverged, 2 usage, 3 could not run, 4 inconclusive, "
        "130 interrupted."
    ),
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("check")(check.check)
app.command("record")(record.record)
app.command("init")(init.init)
app.command("preprocess")(preprocess.preprocess)
app.command("train")(train.train)
app.command("train-parity")(train_parity.train_parity)
app.command("report")(report.report)
app.command("judge")(judge.judge)
app.command("models")(models.models)
app.add_typer(history.app, name="history")
app.command("bisect", cls=bisect.Command)(bisect.bisect)
