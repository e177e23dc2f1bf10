"""`bisect`: the first commit from which on a run diverges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from verifier.cli import exits, interruption, options, showing
from verifier.errors import UsageError


class Command(TyperCommand):
    """`bisect`, whose own options end where the run begins."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a run that does not stand behind `--`: its options would be taken for those of `bisect`."""
        if "--" not in args and (
            "run" in args or any(word.startswith("--") for word in args if word not in _OWN)
        ):
            ctx.fail(
                "the run and its options stand behind `--`: verifier bisect GOOD BAD -- run --baseline SPEC "
                "--candidate SPEC"
            )
        return super().parse_args(ctx, args)


_OWN = ("--debug", "--help")


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
        arguments, files = _without_files(command)
        out = files.get("--out")
        interruption.leaves("the worktree is removed, and the checkout is as it was.")
        from reports import history as report
        from verifier.gate.bisecting import bisect as search
        from verifier.gate.findings import Outcome
        from verifier.gate.formats import Formats
        from verifier.storage.saving import check_writable, save

        formats = Formats(*map(files.get, _FORMATS))
        formats.check()
        if out is not None:
            check_writable(out)
        found, result = search(good, bad, arguments, lambda each: showing.say(f"{report.trial(each)}\n"))
        showing.say(f"\n{report.bisected(found, result)}")
        if result is not None:
            showing.warn(formats.write([Outcome.of(result)]))
            if out is not None:
                showing.warn(save(result, out))
                showing.say(f"\nReport: {out}/report.html\n")
        elif files:
            showing.warn([f"not written, as there is no one bad commit: {', '.join(files)}."])
        exits.end(0 if len(found.commits) == 1 else 4)


_FORMATS = ("--junit", "--sarif", "--code-quality")  # as `Formats` has them


def _without_files(command: list[str]) -> tuple[list[str], dict[str, Path]]:
    """The command without the files that get the first bad commit's result, and these by their options."""
    kept: list[str] = []
    files: dict[str, Path] = {}
    words = iter(command)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in ("--out", *_FORMATS):
            kept.append(word)
            continue
        given = value if equals else next(words, "")
        if not given:
            raise UsageError(f"{option} takes a {'directory' if option == '--out' else 'file'}.")
        files[option] = Path(given)
    return kept, files
