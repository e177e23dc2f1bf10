"""`bisect`: the first commit from which on a run diverges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, interruption, options, showing
from verifier.errors import UsageError


def bisect(
    good: Annotated[
        str, typer.Argument(metavar="GOOD", help="A revision at which the run ends with a match.")
    ],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="A later one, at which it diverges.")],
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- run [OPTIONS]", help="The run, with options as `run` takes them."),
    ],
    debug: options.Debug = False,
) -> None:
    """Find the first bad commit between two, with its site and cause, by `git bisect run` in a worktree of its own.

    Exit codes: 0 found, 2 usage, 3 could not run, 4 several commits are left because others did not run.
    """
    with exits.translated(debug=debug):
        if command[0] != "run":
            raise UsageError("what is bisected is a run: write `verifier bisect GOOD BAD -- run ...`.")
        arguments, out = _without_out(command)
        interruption.leaves("the worktree is removed, and the checkout is as it was.")
        from reports import history as report
        from verifier.gate.bisecting import bisect as search
        from verifier.storage.saving import check_writable, save

        if out is not None:
            check_writable(out)
        found, result = search(good, bad, arguments, lambda each: showing.say(f"{report.trial(each)}\n"))
        showing.say(f"\n{report.bisected(found, result)}")
        if out is not None and result is not None:
            showing.warn(save(result, out))
            showing.say(f"\nReport: {out}/report.html\n")
        exits.end(0 if len(found.commits) == 1 else 4)


def _without_out(command: list[str]) -> tuple[list[str], Path | None]:
    """The command without `--out`, whose directory gets the first bad commit's result."""
    kept: list[str] = []
    out = None
    words = iter(command)
    for word in words:
        if word == "--out":
            out = next(words, None)
            if out is None:
                raise UsageError("--out takes a directory.")
        elif word.startswith("--out="):
            out = word.removeprefix("--out=")
        else:
            kept.append(word)
    return kept, None if out is None else Path(out)
